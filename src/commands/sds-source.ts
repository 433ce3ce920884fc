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
  const expected = of('--sds-server-id', () => parseSpiffeId(serverId));
  const { bundle, cert, key } = files;
  // Read for each connection: whoever writes the files renews them.
  const bundles = () => of('--sds-tls-bundle', () => trustBundles(parseTrustBundle(readFileSync(bundle, 'utf8'), expected.trustDomain)));
  const identity = (): Identity => ({
    svid: of('--sds-tls-cert and --sds-tls-key', () =>
      parseX509Svid({ chain: readFileSync(cert, 'utf8'), key: readFileSync(key, 'utf8') }),
    ),
    bundles: bundles(),
  });
  identity();
  return tlsTarget({ address, identity, bundles, revocations: () => noRevocations, expected: { spiffeIds: [expected.uri] }, now });
}

/** Whatever is wrong with it, the operator is told which flag to look at. */
function of<T>(flag: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `${flag}: ${messageOf(cause)}`, { cause });
  }
}
