// The keys that sign JWT-SVIDs. They live in the CA alone; a key is published before it signs and until the last of its tokens has expired.

import { createHash, type KeyObject } from 'node:crypto';
import { join } from 'node:path';
import { HandfastError, messageOf } from '../errors.ts';
import { readStateJson, replacePrivate } from '../store/state-file.ts';
import { formatJwtKeys, type JwtKeyRecord, type JwtKeyState, nextKeyDue, parseJwtKeys, signingKey, withoutSpent } from './jwt-key-state.ts';
import type { KeyStore, Signer } from './signer.ts';

const HOUR = 3_600_000;
export const MAX_JWT_TTL_MS = HOUR;
/** Tokens live an hour at most, whatever the options were when they were made; the rest is for clocks that differ. */
const KEEP_MS = MAX_JWT_TTL_MS + 60_000;

export interface JwtKeyOptions {
  readonly dir: string;
  readonly keys: KeyStore;
  readonly now: () => number;
  /** How long a key signs; default 7 days. */
  readonly lifetimeMs?: number;
  /** How long it is published before; default an hour. */
  readonly publishAheadMs?: number;
}

interface JwtKey extends JwtKeyRecord {
  readonly signer: Signer;
}

export class JwtKeys {
  readonly #options: JwtKeyOptions;
  readonly #path: string;
  readonly #lifetimeMs: number;
  readonly #publishAheadMs: number;
  #sequence = 0;
  #keys: readonly JwtKey[] = [];

  private constructor(options: JwtKeyOptions) {
    this.#options = options;
    this.#path = join(options.dir, 'jwt-keys.json');
    this.#lifetimeMs = options.lifetimeMs ?? 7 * 24 * HOUR;
    this.#publishAheadMs = options.publishAheadMs ?? HOUR;
  }

  /** Reads the keys, or makes the first. Throws STATE_INVALID, or CONFIG_INVALID for times that do not fit each other. */
  static async open(options: JwtKeyOptions): Promise<JwtKeys> {
    const keys = new JwtKeys(options);
    if (!(keys.#publishAheadMs > 0 && keys.#lifetimeMs > keys.#publishAheadMs))
      throw new HandfastError(
        'CONFIG_INVALID',
        'a JWT key must sign for longer than it is published ahead of that, and that for some time',
      );
    const state = await readStateJson(keys.#path, parseJwtKeys);
    if (state !== undefined) await keys.#load(state);
    await keys.rotate();
    return keys;
  }

  /** The key that signs now. */
  get signing(): { readonly kid: string; readonly signer: Signer } {
    const now = this.#options.now();
    const key = this.#keys.find(({ kid }) => kid === signingKey(this.#keys, now)?.kid);
    if (key === undefined) throw new HandfastError('STATE_INVALID', `${this.#path}: no key is left to sign with`);
    return key;
  }

  /** The keys that verify, as the members of a SPIFFE JWT bundle (https://spiffe.io/docs/latest/spiffe-specs/spiffe_trust_domain_and_bundle/). */
  get jwks(): object {
    const keys = this.#keys.map(({ kid, signer }) => ({ ...publicMembers(signer.publicKey), kid, use: 'jwt-svid', alg: 'ES256' }));
    const hint = Math.max(1, Math.min(300, Math.floor(this.#publishAheadMs / 4000)));
    return { keys, spiffe_sequence: this.#sequence, spiffe_refresh_hint: hint };
  }

  /** Makes the next key when it is time, and drops those that nothing alive was signed with. True when the published set has changed. */
  async rotate(): Promise<boolean> {
    const now = this.#options.now();
    const kept = withoutSpent(this.#keys, { now, keepMs: KEEP_MS });
    const due = nextKeyDue(kept, { now, lifetimeMs: this.#lifetimeMs, publishAheadMs: this.#publishAheadMs });
    if (due === undefined && kept.length === this.#keys.length) return false;
    await this.#replace([...this.#named(kept), ...(due === undefined ? [] : [await this.#make(due)])]);
    return true;
  }

  /** Withdraws a key at once: nothing that it signed verifies any more. The next one, or a new one, takes over now. Throws CONFIG_INVALID. */
  async withdraw(kid: string): Promise<void> {
    const now = this.#options.now();
    const kept = this.#keys.filter((key) => key.kid !== kid);
    if (kept.length === this.#keys.length) {
      const known = this.#keys.map((key) => key.kid).join(', ');
      throw new HandfastError('CONFIG_INVALID', `JWT key ${JSON.stringify(kid)} is not published: ${known} are`);
    }
    if (this.signing.kid !== kid) return this.#replace(kept);
    // An older key signs no more: it may have been withdrawn from service for a reason. The waiting one begins early.
    const next = kept.find(({ signsFrom }) => signsFrom > now);
    const successor = next === undefined ? await this.#make(now) : { ...next, signsFrom: now };
    await this.#replace([...kept.filter((key) => key !== next), successor]);
  }

  #named(records: readonly JwtKeyRecord[]): JwtKey[] {
    return this.#keys.filter(({ kid }) => records.some((record) => record.kid === kid));
  }

  async #make(signsFrom: number): Promise<JwtKey> {
    const { signer, pem } = await this.#options.keys.create();
    return { kid: thumbprint(signer.publicKey), pem, signsFrom, signer };
  }

  async #load({ sequence, keys }: JwtKeyState): Promise<void> {
    try {
      this.#keys = await Promise.all(keys.map(async (record) => ({ ...record, signer: await this.#options.keys.open(record.pem) })));
      const stranger = this.#keys.find(({ kid, signer }) => thumbprint(signer.publicKey) !== kid);
      if (stranger !== undefined) throw new Error(`kid ${stranger.kid} is not that of its key`);
    } catch (cause) {
      throw new HandfastError(
        'STATE_INVALID',
        `${this.#path}: ${messageOf(cause)}; restore it from a backup, or remove it to have new keys made`,
        { cause },
      );
    }
    this.#sequence = sequence;
  }

  async #replace(keys: readonly JwtKey[]): Promise<void> {
    // At least the Unix time in seconds, so that it rises even when the file was lost.
    const sequence = Math.max(this.#sequence + 1, Math.floor(this.#options.now() / 1000));
    const records = keys.map(({ kid, pem, signsFrom }) => ({ kid, pem, signsFrom }));
    await replacePrivate(this.#path, formatJwtKeys({ sequence, keys: records }));
    [this.#sequence, this.#keys] = [sequence, keys];
  }
}

/** RFC 7638: SHA-256 over the required members, in this order. */
function thumbprint(publicKey: KeyObject): string {
  return createHash('sha256')
    .update(JSON.stringify(publicMembers(publicKey)))
    .digest('base64url');
}

function publicMembers(publicKey: KeyObject): { crv: string; kty: string; x: string; y: string } {
  const { crv, kty, x, y } = publicKey.export({ format: 'jwk' });
  if (crv === undefined || kty === undefined || x === undefined || y === undefined) throw new Error('the key is not on a curve');
  return { crv, kty, x, y };
}
