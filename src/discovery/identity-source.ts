// From SDS secrets to one Identity: each part is validated as it comes, and the pair is published only when the SVID chains to the bundle.

import { HandfastError, messageOf } from '../errors.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { parseTrustBundle } from '../spiffe/trust-bundle.ts';
import { chainsTo, parseX509Svid, type X509Svid } from '../spiffe/x509-svid.ts';
import type { DataSource } from '../wire/gen/envoy/config/core/v3/base.ts';
import type { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { DiscoveryLog } from './stream.ts';

/** Istio's names for a workload's own certificate and the bundle it verifies peers with. */
export const secretNames = { svid: 'default', bundle: 'ROOTCA' } as const;

export class IdentitySource {
  readonly #identity: Snapshot<Identity>;
  readonly #prove: (identity: Identity) => void;
  readonly #log: DiscoveryLog;
  readonly #now: () => number;
  #svid: X509Svid | undefined;
  #bundlePem: string | undefined;

  /** `prove` throws for a pair that TLS would refuse (a key too small, say): it must not come into force. */
  constructor(deps: { identity: Snapshot<Identity>; prove: (identity: Identity) => void; log: DiscoveryLog; now: () => number }) {
    this.#prove = deps.prove;
    this.#identity = deps.identity;
    this.#log = deps.log;
    this.#now = deps.now;
  }

  /** Takes one SDS response. Throws SECRET_INVALID, leaving everything as it was, when any part of it is unusable. */
  accept(secrets: readonly Secret[]): void {
    let svid = this.#svid;
    let bundlePem = this.#bundlePem;
    for (const secret of secrets) {
      const read = readSecret(secret);
      if (read.svid !== undefined) svid = this.#current(read.svid);
      if (read.bundlePem !== undefined) bundlePem = read.bundlePem;
    }
    const identity = this.#pair(svid, bundlePem);
    this.#svid = svid;
    this.#bundlePem = bundlePem;
    if (identity === undefined) return;
    const { id, serial, notAfter } = identity.svid;
    this.#log.info({ spiffeId: id.uri, serial, notAfter: new Date(notAfter).toISOString() }, 'identity in force');
    this.#identity.replace(identity);
  }

  /** The new pair, proven to be usable; undefined while there is no pair, or nothing new in it. */
  #pair(svid: X509Svid | undefined, bundlePem: string | undefined): Identity | undefined {
    if (svid === undefined || bundlePem === undefined) return undefined;
    const current = this.#identity.current;
    const bundle = parseTrustBundle(bundlePem, svid.id.trustDomain);
    if (svid.serial === current?.svid.serial && bundle.pem === current.bundle.pem) return undefined;
    if (!chainsTo(svid, bundle)) {
      // SVID and bundle may arrive in either order while a root is being replaced.
      this.#log.warn(
        { spiffeId: svid.id.uri, serial: svid.serial },
        'the SVID does not chain to a root of the trust bundle yet; the last good pair stays in force',
      );
      return undefined;
    }
    const identity = Object.freeze({ svid, bundle });
    try {
      this.#prove(identity);
    } catch (cause) {
      throw new HandfastError('SECRET_INVALID', `TLS cannot use the certificate: ${messageOf(cause)}`, { cause });
    }
    return identity;
  }

  #current(svid: X509Svid): X509Svid {
    const now = this.#now();
    const when = (time: number) => new Date(time).toISOString();
    if (svid.notAfter <= now) throw new HandfastError('SECRET_INVALID', `the certificate ${svid.serial} expired at ${when(svid.notAfter)}`);
    if (svid.notBefore > now)
      throw new HandfastError('SECRET_INVALID', `the certificate ${svid.serial} is not valid before ${when(svid.notBefore)}`);
    return svid;
  }
}

function readSecret(secret: Secret): { svid?: X509Svid; bundlePem?: string } {
  switch (secret.name) {
    case secretNames.svid: {
      if (secret.type?.$case !== 'tlsCertificate') throw wrongKind(secret, 'a tls_certificate');
      const { certificateChain, privateKey, password } = secret.type.value;
      if (password !== undefined)
        throw new HandfastError('SECRET_INVALID', 'the private key is encrypted (password is set); send it unencrypted');
      return { svid: parseX509Svid({ chain: inline(certificateChain, 'certificate_chain'), key: inline(privateKey, 'private_key') }) };
    }
    case secretNames.bundle: {
      if (secret.type?.$case !== 'validationContext') throw wrongKind(secret, 'a validation_context');
      const pem = inline(secret.type.value.trustedCa, 'trusted_ca');
      // Validated here, so that a bad bundle is refused (NACK) even before there is an SVID to hold against it.
      parseTrustBundle(pem, '');
      return { bundlePem: pem };
    }
    default:
      throw new HandfastError('SECRET_INVALID', `secret ${JSON.stringify(secret.name)} was not asked for`);
  }
}

/** Only bytes and strings in the message itself: a file name or variable from a peer would read this process's files. */
function inline(source: DataSource | undefined, field: string): string {
  switch (source?.specifier?.$case) {
    case 'inlineBytes':
      return Buffer.from(source.specifier.value).toString('utf8');
    case 'inlineString':
      return source.specifier.value;
    case undefined:
      throw new HandfastError('SECRET_INVALID', `${field} is missing`);
    default:
      throw new HandfastError('SECRET_INVALID', `${field} must be inline, not a file or variable`);
  }
}

function wrongKind(secret: Secret, wanted: string): HandfastError {
  return new HandfastError('SECRET_INVALID', `secret ${secret.name} must be ${wanted}, not ${secret.type?.$case ?? 'empty'}`);
}
