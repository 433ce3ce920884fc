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
  /** Of tokens; default 16 MiB. */
  readonly maxBytes?: number;
}

const MAX_ENTRIES = 10_000;
const MAX_BYTES = 16 * 1024 * 1024;
/** What is not handed out any more is dropped this often. */
const SWEEP_MS = 60_000;

/** `proofEndsAt`: when the token ends (Unix milliseconds) by which its workload proved itself: nothing is handed out on its word then. */
interface Entry {
  readonly svid: JwtSvid;
  readonly proofEndsAt: number;
}

export class JwtSvidCache implements JwtSvidSigner {
  readonly #options: CacheOptions;
  /** The longest unused first. */
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #sweptAt = 0;
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
    this.#drop(key);
    if (known !== undefined && this.#mayBeUsedAgain(known)) {
      this.#keep(key, known);
      return known.svid;
    }
    let signing = this.#underWay.get(key);
    if (signing === undefined) {
      signing = this.#sign(key, { token, audience: unique }).finally(() => this.#underWay.delete(key));
      this.#underWay.set(key, signing);
    }
    return signing;
  }

  async #sign(key: string, request: JwtSvidRequest): Promise<JwtSvid> {
    const { signer, maxEntries = MAX_ENTRIES, maxBytes = MAX_BYTES } = this.#options;
    const signed = await signer.signJwtSvid(request);
    if (signed.expiresAt * 1000 <= this.#options.now()) {
      throw new HandfastError('JWT_INVALID', `${signed.spiffeId}: the CA signed a token that is expired by our clock`);
    }
    this.#sweep();
    this.#keep(key, { svid: signed, proofEndsAt: endOf(request.token) });
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= maxEntries && this.#bytes <= maxBytes) break;
      this.#drop(oldest);
    }
    return signed;
  }

  #keep(key: string, entry: Entry): void {
    this.#entries.set(key, entry);
    this.#bytes += entry.svid.token.length;
  }

  #drop(key: string): void {
    this.#bytes -= this.#entries.get(key)?.svid.token.length ?? 0;
    this.#entries.delete(key);
  }

  #sweep(): void {
    const now = this.#options.now();
    if (now - this.#sweptAt < SWEEP_MS) return;
    this.#sweptAt = now;
    for (const [key, entry] of this.#entries) if (!isYoung(entry, now)) this.#drop(key);
  }

  /** In the first half of its life, its key still in the bundle and its issuer the one of now, and nobody's that has been blocked, or was since. */
  #mayBeUsedAgain(entry: Entry): boolean {
    const { token, spiffeId, issuedAt } = entry.svid;
    const trust = this.#options.trust();
    if (trust === undefined || trust.blockedIds.has(spiffeId) || isBeforeRevocation(trust, { spiffeId, issuedAt })) return false;
    if (!isYoung(entry, this.#options.now())) return false;
    try {
      const { kid, claims } = readJws(token);
      if (claims.iss !== trust.issuer) return false;
      const keySet = trust.keySets.get(parseSpiffeId(spiffeId).trustDomain);
      return kid !== undefined && keySet?.keys.some((key) => key.kid === kid) === true;
    } catch {
      return false;
    }
  }
}

function isYoung({ svid: { issuedAt, expiresAt }, proofEndsAt }: Entry, now: number): boolean {
  return now < ((issuedAt + expiresAt) / 2) * 1000 && now < proofEndsAt;
}

/** Of a token that does not say, it is for the CA alone to know. */
function endOf(token: string): number {
  try {
    const { exp } = readJws(token).claims;
    return typeof exp === 'number' ? exp * 1000 : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}
