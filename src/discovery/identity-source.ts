// From SDS secrets to one Identity: each part is validated as it comes, and the pair is published only when the SVID chains to the bundle.

import { HandfastError, messageOf } from '../errors.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { checkOwnCertificate } from '../spiffe/own-certificate.ts';
import { sameBundles } from '../spiffe/trust-bundle.ts';
import { chainsTo, type X509Svid } from '../spiffe/x509-svid.ts';
import type { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import { type BundleTexts, bundlesOf, readBundles, readEach, readSvid } from './secret-reader.ts';
import type { DiscoveryLog } from './stream.ts';

/** Istio's names for a workload's own certificate and the bundle it verifies peers with; SPIRE's for all bundles; ours for the revocation list and JWT keys: the CA's key set, and what an agent gives its sidecars to verify JWT-SVIDs with. */
export const secretNames = { svid: 'default', bundle: 'ROOTCA', allBundles: 'ALL', crl: 'CRL', jwks: 'JWKS', jwtTrust: 'JWT' } as const;

export interface IdentitySourceOptions {
  readonly identity: Snapshot<Identity>;
  /** What the secrets are called; by default as Istio calls them. */
  readonly names?: { readonly svid: string; readonly bundle: string };
  /** Throws for a pair that TLS would refuse (a key too small, say): it must not come into force. */
  readonly prove: (identity: Identity) => void;
  readonly log: DiscoveryLog;
  readonly now: () => number;
}

export class IdentitySource {
  readonly resourceNames: readonly [svid: string, bundle: string];
  readonly #options: IdentitySourceOptions;
  #svid: X509Svid | undefined;
  #bundles: BundleTexts | undefined;

  constructor(options: IdentitySourceOptions) {
    const { svid, bundle } = options.names ?? secretNames;
    this.resourceNames = [svid, bundle];
    this.#options = options;
  }

  /** Takes one SDS response. Throws SECRET_INVALID, leaving everything as it was, when any part of it is unusable. */
  accept(secrets: readonly Secret[]): void {
    const [svidName, bundleName] = this.resourceNames;
    let svid = this.#svid;
    let bundles = this.#bundles;
    readEach(secrets, {
      [svidName]: (secret) => {
        svid = this.#current(readSvid(secret));
      },
      [bundleName]: (secret) => {
        bundles = readBundles(secret);
      },
    });
    const identity = this.#pair(svid, bundles);
    this.#svid = svid;
    this.#bundles = bundles;
    if (identity === undefined) return;
    const { id, serial, notAfter } = identity.svid;
    const trustDomains = identity.bundles.all.map(({ trustDomain }) => trustDomain);
    this.#options.log.info({ spiffeId: id.uri, serial, notAfter: new Date(notAfter).toISOString(), trustDomains }, 'identity in force');
    this.#options.identity.replace(identity);
  }

  /** The new pair, proven to be usable; undefined while there is no pair, or nothing new in it. */
  #pair(svid: X509Svid | undefined, texts: BundleTexts | undefined): Identity | undefined {
    if (svid === undefined || texts === undefined) return undefined;
    const { current } = this.#options.identity;
    const bundles = bundlesOf(svid.id.trustDomain, texts);
    // By the certificates themselves: not every issuer counts its serials.
    if (svid.chainPem === current?.svid.chainPem && bundles !== undefined && sameBundles(bundles, current.bundles)) return undefined;
    if (bundles === undefined || !chainsTo(svid.certificates, bundles.own)) {
      // SVID and bundle may arrive in either order while a root is being replaced.
      this.#options.log.warn(
        { spiffeId: svid.id.uri, serial: svid.serial },
        'the SVID does not chain to a root of the trust bundle yet; the last good one stays in force',
      );
      // Whom the bundle drops is not trusted any longer for that.
      if (current === undefined || svid.chainPem === current.svid.chainPem) return undefined;
      return this.#pair(current.svid, texts);
    }
    const identity = Object.freeze({ svid, bundles });
    try {
      this.#options.prove(identity);
    } catch (cause) {
      throw new HandfastError('SECRET_INVALID', `TLS cannot use the certificate: ${messageOf(cause)}`, { cause });
    }
    return identity;
  }

  #current(svid: X509Svid): X509Svid {
    try {
      checkOwnCertificate(svid, this.#options.now());
      return svid;
    } catch (cause) {
      throw new HandfastError('SECRET_INVALID', messageOf(cause), { cause });
    }
  }
}
