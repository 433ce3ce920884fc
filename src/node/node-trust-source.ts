// From the CA's SDS secrets to what the node trusts: each part is validated as it comes, the last good one stays.

import { secretNames } from '../discovery/identity-source.ts';
import { bundlesOf, readBundles, readCrl, readEach, readGeneric } from '../discovery/secret-reader.ts';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { Snapshot } from '../snapshot.ts';
import { noRevocations, parseRevocationList } from '../spiffe/crl.ts';
import { parseJwks } from '../spiffe/jwt.ts';
import { readExtras } from '../spiffe/jwt-trust.ts';
import { parseTrustBundle, sameBundles, type TrustBundles, trustBundles } from '../spiffe/trust-bundle.ts';
import type { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { NodeTrust } from './node-trust.ts';

/**
 * The secrets of the CA's three streams: revocations come on their own, so that a bad list holds up nothing else, and so do JWT keys, since the
 * bundle's answer may wait long for this node's sidecars.
 */
export const trustSecretNames = { bundle: [secretNames.bundle], jwtKeys: [secretNames.jwks], revocations: [secretNames.crl] } as const;

export class NodeTrustSource {
  readonly trust = new Snapshot<NodeTrust>();
  readonly #trustDomain: string;
  readonly #log: Log;
  /** Before the first list: undefined while one is to come, and empty where the CA has none. */
  readonly #firstCrlPem: string | undefined;
  /** The latest list, while no authority of ours vouches for its signer yet. */
  #waiting: string | undefined;

  constructor(options: { trustDomain: string; caKind: 'handfast' | 'istio'; log: Log }) {
    this.#trustDomain = options.trustDomain;
    this.#log = options.log;
    this.#firstCrlPem = options.caKind === 'istio' ? '' : undefined;
  }

  /** The bundle to begin with (from a file), or the one that Istio's CA sends with each certificate. Throws SECRET_INVALID. */
  useBundle(pem: string): void {
    const bundles = trustBundles(parseTrustBundle(pem, this.#trustDomain));
    if (bundles.own.pem === this.trust.current?.bundles.own.pem) return;
    this.#replace({ crl: noRevocations, crlPem: this.#firstCrlPem, jwks: new Map(), ...this.trust.current, bundles });
  }

  /** Begins with the revocation list that was in force before; one that cannot be used any more is as good as none. */
  useRevocations(crlPem: string): void {
    const { current } = this.trust;
    if (current === undefined) return;
    try {
      this.#useRevocations(crlPem, current);
    } catch (error) {
      this.#log.warn({ reason: messageOf(error) }, 'the revocation list on disk is not used');
    }
  }

  /** Takes bundle and JWT keys from an SDS response. Throws SECRET_INVALID; the last good ones stay. */
  acceptTrust(secrets: readonly Secret[]): void {
    let { bundles, jwks } = this.trust.current ?? { bundles: undefined, jwks: undefined };
    readEach(secrets, {
      [secretNames.bundle]: (secret) => {
        bundles = this.#bundles(secret);
      },
      [secretNames.jwks]: (secret) => {
        jwks = this.#jwks(secret);
      },
    });
    if (bundles === undefined) throw new HandfastError('SECRET_INVALID', 'JWT keys came without a trust bundle before them');
    const { crl, crlPem } = this.trust.current ?? { crl: noRevocations, crlPem: this.#firstCrlPem };
    this.#replace({ bundles, jwks: jwks ?? new Map(), crl, crlPem });
    if (!secrets.some(({ name }) => name === secretNames.bundle)) {
      this.#log.info({ trustDomain: this.#trustDomain }, 'JWT keys in force');
      return;
    }
    const authorities = bundles.own.authorities.map(({ fingerprint256 }) => fingerprint256.slice(0, 23));
    this.#log.info({ trustDomain: this.#trustDomain, authorities }, 'trust bundle in force');
    this.#retryRevocations();
  }

  /** Takes the revocation list. Throws SECRET_INVALID or CRL_INVALID; the last good one stays. */
  acceptRevocations(secrets: readonly Secret[]): void {
    const { current } = this.trust;
    let crlPem: string | undefined;
    readEach(secrets, {
      [secretNames.crl]: (secret) => {
        crlPem = readCrl(secret);
      },
    });
    if (crlPem === undefined) return;
    if (current === undefined) throw new HandfastError('CRL_INVALID', 'there is no trust bundle yet to verify the revocation list with');
    // Its signer may stand below a root that is on its way to us.
    this.#waiting = crlPem;
    this.#useRevocations(crlPem, current);
  }

  #retryRevocations(): void {
    const { current } = this.trust;
    if (this.#waiting === undefined || current === undefined) return;
    try {
      this.#useRevocations(this.#waiting, current);
    } catch (error) {
      this.#log.warn({ reason: messageOf(error) }, 'revocation list still refused, the last good one stays in force');
    }
  }

  #useRevocations(crlPem: string, current: NodeTrust): void {
    const crl = parseRevocationList(crlPem, current.bundles.own);
    this.#waiting = undefined;
    this.#replace({ ...current, crl, crlPem });
    this.#log.info({ serials: crl.serials.size, blockedIds: [...crl.blockedIds] }, 'revocation list in force');
  }

  #bundles(secret: Secret): TrustBundles {
    const bundles = bundlesOf(this.#trustDomain, readBundles(secret));
    if (bundles === undefined)
      throw new HandfastError('SECRET_INVALID', `the bundle has no trust domain ${this.#trustDomain}, which is this node's`);
    const { current } = this.trust;
    // Nobody need encode or check anything again for a bundle that stayed the same.
    return current !== undefined && sameBundles(bundles, current.bundles) ? current.bundles : bundles;
  }

  #jwks(secret: Secret): ReadonlyMap<string, string> {
    const text = readGeneric(secret);
    try {
      parseJwks(text);
      readExtras(text);
    } catch (cause) {
      throw new HandfastError('SECRET_INVALID', `secret ${secret.name}: ${messageOf(cause)}`, { cause });
    }
    return new Map([[this.#trustDomain, text]]);
  }

  #replace(next: NodeTrust): void {
    this.trust.replace(Object.freeze(next));
  }
}
