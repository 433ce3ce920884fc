// JWT-SVIDs that were signed already: the same workload asks for the same audience again and again, and the CA need not sign each time.

import { createHash } from 'node:crypto';
import { HandfastError } from '../errors.ts';
import { readJws } from '../spiffe/jwt.ts';
import { isBeforeRevocation, type JwtTrust } from '../spiffe/jwt-trust.ts';
import { parseSpiffeId } from '../spiffe/spiffe-id.ts';

/** A signed token. Times are Unix seconds. */
export interface JwtSvid {
  readonly spiffeId: string;
  readonly token: string;
  readonly issuedAt: number;
  readonly expiresAt: number;
}

/** `token` is the workload's own, which proves who it is to the CA. */
export interface JwtSvidRequest {
  readonly token: string;
  readonly audience: readonly string[];
}

export interface JwtSvidSigner {
  signJwtSvid(request: JwtSvidRequest): Promise<JwtSvid>;
}

interface CacheOptions {
  readonly signer: JwtSvidSigner;
  /** What verifies tokens now. */
  readonly trust: () => JwtTrust | undefined;
  /** Unix milliseconds. */
  readonly now: () => number;
  readonly maxEntries?: number;
}

const MAX_ENTRIES = 10_000;

export class JwtSvidCache implements JwtSvidSigner {
  readonly #options: CacheOptions;
  /** The longest unused first. */
  readonly #entries = new Map<string, JwtSvid>();
  readonly #underWay = new Map<string, Promise<JwtSvid>>();

  constructor(options: CacheOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Rejects as the signer does. */
  async signJwtSvid({ token, audience }: JwtSvidRequest): Promise<JwtSvid> {
    const unique = [...new Set(audience)];
    // By digest: the map's keys must not be credentials. JSON keeps ["a,b"] and ["a","b"] apart.
    const key = createHash('sha256')
      .update(JSON.stringify([token, unique.toSorted()]))
      .digest('base64');
    const known = this.#entries.get(key);
    this.#entries.delete(key);
    if (known !== undefined && this.#mayBeUsedAgain(known)) {
      this.#entries.set(key, known);
      return known;
    }
    let signing = this.#underWay.get(key);
    if (signing === undefined) {
      signing = this.#sign(key, { token, audience: unique }).finally(() => this.#underWay.delete(key));
      this.#underWay.set(key, signing);
    }
    return signing;
  }

  async #sign(key: string, request: JwtSvidRequest): Promise<JwtSvid> {
    const { signer, maxEntries = MAX_ENTRIES } = this.#options;
    const signed = await signer.signJwtSvid(request);
    if (signed.expiresAt * 1000 <= this.#options.now()) {
      throw new HandfastError('JWT_INVALID', `${signed.spiffeId}: the CA signed a token that is expired by our clock`);
    }
    this.#entries.set(key, signed);
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= maxEntries) break;
      this.#entries.delete(oldest);
    }
    return signed;
  }

  /** In the first half of its life, its key still in the bundle, and nobody's that has been blocked, or was since. */
  #mayBeUsedAgain({ token, spiffeId, issuedAt, expiresAt }: JwtSvid): boolean {
    const trust = this.#options.trust();
    if (trust === undefined || trust.blockedIds.has(spiffeId) || isBeforeRevocation(trust, { spiffeId, issuedAt })) return false;
    if (!(this.#options.now() < ((issuedAt + expiresAt) / 2) * 1000)) return false;
    try {
      const { kid } = readJws(token);
      const keySet = trust.keySets.get(parseSpiffeId(spiffeId).trustDomain);
      return kid !== undefined && keySet?.keys.some((key) => key.kid === kid) === true;
    } catch {
      return false;
    }
  }
}
