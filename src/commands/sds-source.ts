// Where a sidecar's certificates come from: the node agent, or any other SDS server, on a unix socket or over mutual TLS.

import { readFileSync } from 'node:fs';
import { secretNames } from '../discovery/identity-source.ts';
import { HandfastError, messageOf } from '../errors.ts';
import type { ProxyConfig } from '../proxy/config.ts';
import { noRevocations } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { parseSpiffeId } from '../spiffe/spiffe-id.ts';
import { parseTrustBundle, trustBundles } from '../spiffe/trust-bundle.ts';
import { parseX509Svid } from '../spiffe/x509-svid.ts';
import { type GrpcTarget, isUnixAddress, tlsTarget, unixTarget } from '../wire/grpc-target.ts';

export interface SdsSource {
  readonly target: GrpcTarget;
  readonly names: { readonly svid: string; readonly bundle: string };
  /** The revocation list's secret; undefined where the server has none. */
  readonly crl: string | undefined;
}

/** Throws CONFIG_INVALID that names the flag. */
export function sdsSource(config: ProxyConfig, now: () => number): SdsSource {
  const own = config.sds === undefined;
  const crl = config['sds-crl'] ?? (own ? secretNames.crl : 'none');
  return {
    target: own ? unixTarget(config.agent) : isUnixAddress(config.sds) ? unixTarget(config.sds) : overTls(config.sds, { config, now }),
    names: { svid: config['sds-svid'], bundle: config['sds-bundle'] },
    crl: crl === 'none' ? undefined : crl,
  };
}

function overTls(address: string, { config, now }: { config: ProxyConfig; now: () => number }): GrpcTarget {
  const serverId = config['sds-server-id'];
  const files = { bundle: config['sds-tls-bundle'], cert: config['sds-tls-cert'], key: config['sds-tls-key'] };
  if (serverId === undefined || files.bundle === undefined || files.cert === undefined || files.key === undefined) {
    const needed = '--sds-server-id, --sds-tls-bundle, --sds-tls-cert and --sds-tls-key';
    throw new HandfastError('CONFIG_INVALID', `--sds ${address}: an SDS server that is not on a unix socket needs ${needed}`);
  }
  const expected = parseSpiffeId(serverId);
  const { bundle, cert, key } = files;
  // Read for each connection: whoever writes the files renews them.
  const bundles = () => trustBundles(parseTrustBundle(read('--sds-tls-bundle', bundle), expected.trustDomain));
  const identity = (): Identity => ({
    svid: parseX509Svid({ chain: read('--sds-tls-cert', cert), key: read('--sds-tls-key', key) }),
    bundles: bundles(),
  });
  identity();
  return tlsTarget({ address, identity, bundles, revocations: () => noRevocations, expected: { spiffeIds: [expected.uri] }, now });
}

function read(flag: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `${flag}: ${messageOf(cause)}`, { cause });
  }
}
