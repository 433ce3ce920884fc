// Certificates for workloads and nodes: limited, checked against what is revoked, entered in the ledger, and only then given away.

import type { KeyObject } from 'node:crypto';
import { HandfastError } from '../errors.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { svidTtlBounds } from './authority-options.ts';
import { BACKDATE } from './ca-key-pair.ts';
import { createSvidCertificate, newSerial } from './certificate.ts';
import type { IssuanceLedger } from './issuance-ledger.ts';
import type { IssuanceLimit } from './issuance-limit.ts';
import { keyIdOf } from './ledger-entry.ts';
import type { Revocations } from './revocations.ts';
import type { RootRotation } from './root-rotation.ts';

const SECOND = 1000;

/** Leaf, intermediates, and every current root as one text: PEM, in that order, as Istio's CA answers. */
export interface IssuedSvid {
  readonly chain: readonly [leaf: string, intermediates: string, bundle: string];
  readonly serial: string;
  readonly notAfter: number;
}

/** `node` is who asked, `purpose` what for: both for the ledger, and `node` for the limit too. */
export interface IssueRequest {
  readonly id: SpiffeId;
  readonly publicKey: KeyObject;
  readonly ttlMs?: number;
  /** The longest it can live; default that of workloads. */
  readonly maxTtlMs?: number;
  readonly node?: string;
  readonly purpose?: string;
  /** For the CA's own certificate alone. */
  readonly dnsNames?: readonly string[];
}

interface IssuerOptions {
  readonly dir: string;
  readonly trustDomain: string;
  readonly svidTtlMs: number;
  readonly now: () => number;
  readonly ledger: IssuanceLedger;
  readonly limit: IssuanceLimit;
  readonly revocations: Revocations;
  readonly rotation: RootRotation;
  /** Renews the intermediate when that is due. */
  beforeSigning(): Promise<void>;
}

export class SvidIssuer {
  readonly #options: IssuerOptions;

  constructor(options: IssuerOptions) {
    this.#options = options;
  }

  /**
   * Signs a leaf for `id`, which the caller has proven; its entry is on disk before it is returned. A shorter `ttlMs` is honoured, a longer one is
   * not. Throws IDENTITY_MISMATCH (another trust domain), IDENTITY_BLOCKED, CSR_REFUSED (a revoked key), RATE_LIMITED, or STATE_INVALID once the
   * CA has expired or cannot write.
   */
  async issue(request: IssueRequest): Promise<IssuedSvid> {
    const { id, publicKey, node = '', purpose = 'workload' } = request;
    const { ledger, limit, revocations, rotation } = this.#options;
    if (id.trustDomain !== this.#options.trustDomain)
      throw new HandfastError('IDENTITY_MISMATCH', `${id.uri} is no member of trust domain ${this.#options.trustDomain}`);
    const keyId = keyIdOf(publicKey);
    limit.take({ spiffeId: id.uri, node, what: 'certificates' });
    const refuseRevoked = () => {
      revocations.refuseBlocked(id.uri);
      revocations.refuseRevokedKey(keyId);
    };
    refuseRevoked();
    await this.#options.beforeSigning();
    for (;;) {
      const { root, intermediate } = rotation.issuing;
      const { notBefore, notAfter } = this.#validity(request, intermediate.certificate.validToDate);
      const serial = newSerial();
      const leaf = await createSvidCertificate({
        id,
        dnsNames: request.dnsNames ?? [],
        publicKey,
        issuer: intermediate,
        validity: { notBefore, notAfter },
        serial,
      });
      // From these checks to the entry in the ledger nothing may happen: what is revoked later finds it there.
      refuseRevoked();
      if (!rotation.roots.includes(root)) continue;
      const entry = { serial: serial.toString('hex').toUpperCase(), spiffeId: id.uri, keyId, notBefore, notAfter, node, purpose };
      await ledger.append({ ...entry, issuerKeyId: intermediate.keyId, rootKeyId: root.keyId });
      return { chain: [leaf, intermediate.certificatePem, rotation.bundlePem], serial: entry.serial, notAfter };
    }
  }

  #validity({ ttlMs, maxTtlMs = this.#options.svidTtlMs }: IssueRequest, issuerEnd: Date): { notBefore: number; notAfter: number } {
    const now = this.#options.now();
    const asked = ttlMs !== undefined && ttlMs > 0 ? ttlMs : maxTtlMs;
    const ttl = Math.max(svidTtlBounds.min, Math.min(asked, maxTtlMs));
    // Certificates have whole seconds; the ledger has what they have.
    const notAfter = Math.floor(Math.min(now + ttl, issuerEnd.getTime()) / SECOND) * SECOND;
    if (!(notAfter > now)) {
      throw new HandfastError('STATE_INVALID', `the CA in ${this.#options.dir} expired at ${issuerEnd.toISOString()}: it needs a new root`);
    }
    return { notBefore: Math.floor((now - BACKDATE) / SECOND) * SECOND, notAfter };
  }
}
