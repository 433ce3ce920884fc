// What everybody in the trust domain verifies with: roots, CRL and JWT keys, as one value that is replaced on any change.

import { createHash } from 'node:crypto';
import { Snapshot } from '../snapshot.ts';
import { withExtras } from '../spiffe/jwt-trust.ts';
import { BACKDATE, type CaKeyPair } from './ca-key-pair.ts';
import { createCrl } from './crl-writer.ts';
import type { JwtKeys } from './jwt-keys.ts';
import type { Revocations } from './revocations.ts';
import type { RootRotation } from './root-rotation.ts';

/** `bundlePem`: all roots, the preferred one first. `crlPem`: the CRL and its signer's certificate. `jwks`: a SPIFFE JWT bundle in JSON. */
export interface CaTrust {
  readonly bundlePem: string;
  readonly crlPem: string;
  readonly jwks: string;
  /** Short hash of the bundle: what agents say that they have. */
  readonly bundleVersion: string;
}

interface TrustSources {
  readonly rotation: RootRotation;
  readonly revocations: Revocations;
  readonly jwtKeys: JwtKeys;
  readonly jwtIssuer: string | undefined;
  readonly crlTtlMs: number;
  readonly now: () => number;
}

export class TrustPublisher {
  readonly trust = new Snapshot<CaTrust>();
  readonly #sources: TrustSources;
  #crl: { pem: string; signedBy: CaKeyPair; number: number; signedAt: number; nextUpdate: number } | undefined;

  constructor(sources: TrustSources) {
    this.#sources = sources;
  }

  /** Publishes what has changed, with a new CRL when there is anything new to say, or when half of the old one's time is over. */
  async refresh(): Promise<void> {
    const { rotation, jwtKeys, jwtIssuer: issuer, revocations, now } = this.#sources;
    const crlPem = await this.#currentCrl();
    const { bundlePem } = rotation;
    const bundleVersion = createHash('sha256').update(bundlePem).digest('hex').slice(0, 16);
    // As long as the list of revocations: keys come by another way, and a withdrawn one is no better than a revoked certificate.
    const validUntil = this.#crl?.nextUpdate;
    const jwks = JSON.stringify(withExtras(jwtKeys.jwks, { issuer, notBefore: revocations.jwtNotBefore(now()), validUntil }));
    const next: CaTrust = Object.freeze({ bundlePem, crlPem, jwks, bundleVersion });
    const current = this.trust.current;
    if (current?.crlPem !== crlPem || current.bundlePem !== bundlePem || current.jwks !== next.jwks) this.trust.replace(next);
  }

  async #currentCrl(): Promise<string> {
    const { revocations, rotation, crlTtlMs, now } = this.#sources;
    const issuer = rotation.issuing.intermediate;
    const crl = this.#crl;
    const at = now();
    const isFresh = crl !== undefined && crl.signedBy === issuer && Math.abs(at - crl.signedAt) < crlTtlMs / 2;
    if (isFresh && crl.number === revocations.state.crlNumber) return crl.pem;
    // A revocation has its number already; a CRL for any other reason takes a new one.
    if (crl === undefined || crl.number === revocations.state.crlNumber) await revocations.advance();
    const { crlNumber: number, certificates, ids } = revocations.state;
    // From a little before now, for clocks that are behind, as certificates are; yet never before its issuer, should our own have been set back.
    const thisUpdate = Math.max(at - BACKDATE, issuer.certificate.validFromDate.getTime());
    const nextUpdate = Math.max(at, thisUpdate) + crlTtlMs;
    const signedCrl = await createCrl({
      issuer,
      number,
      thisUpdate,
      nextUpdate,
      revoked: [...certificates.values()],
      blockedIds: [...ids.keys()],
    });
    const pem = issuer.certificatePem + signedCrl;
    this.#crl = { pem, signedBy: issuer, number, signedAt: at, nextUpdate };
    return pem;
  }
}
