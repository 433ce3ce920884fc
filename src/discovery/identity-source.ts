// From SDS secrets to one Identity: each part is validated as it comes, and the pair is published only when the SVID chains to the bundle.

import { HandfastError } from '../errors.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { parseTrustBundle, type TrustBundle } from '../spiffe/trust-bundle.ts';
import { chainsTo, parseX509Svid, type X509Svid } from '../spiffe/x509-svid.ts';
import type { DataSource } from '../wire/gen/envoy/config/core/v3/base.ts';
import type { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { DiscoveryLog } from './stream.ts';

/** Istio's names for a workload's own certificate and the bundle it verifies peers with. */
export const secretNames = { svid: 'default', bundle: 'ROOTCA' } as const;

export class IdentitySource {
  readonly #identity: Snapshot<Identity>;
  readonly #log: DiscoveryLog;
  readonly #now: () => number;
  #svid: X509Svid | undefined;
  #bundlePem: string | undefined;

  constructor(deps: { identity: Snapshot<Identity>; log: DiscoveryLog; now: () => number }) {
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
      if (read.svid !== undefined) svid = this.#unexpired(read.svid);
      if (read.bundlePem !== undefined) bundlePem = read.bundlePem;
    }
    this.#svid = svid;
    this.#bundlePem = bundlePem;
    this.#publish();
  }

  #publish(): void {
    const [svid, bundlePem, current] = [this.#svid, this.#bundlePem, this.#identity.current];
    if (svid === undefined || bundlePem === undefined) return;
    const bundle: TrustBundle = parseTrustBundle(bundlePem, svid.id.trustDomain);
    if (svid.serial === current?.svid.serial && bundle.pem === current.bundle.pem) return;
    if (!chainsTo(svid, bundle)) {
      // SVID and bundle may arrive in either order while a root is being replaced.
      this.#log.warn(
        { spiffeId: svid.id.uri, serial: svid.serial },
        'SVID and trust bundle do not match yet; the last good pair stays in force',
      );
      return;
    }
    this.#log.info({ spiffeId: svid.id.uri, serial: svid.serial, notAfter: new Date(svid.notAfter).toISOString() }, 'identity in force');
    this.#identity.replace(Object.freeze({ svid, bundle }));
  }

  #unexpired(svid: X509Svid): X509Svid {
    if (svid.notAfter > this.#now()) return svid;
    throw new HandfastError('SECRET_INVALID', `the certificate ${svid.serial} expired at ${new Date(svid.notAfter).toISOString()}`);
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
