// Revocation: what was issued goes by its serial, what would be issued is refused by SPIFFE ID or key. Written down before anybody is told.

import { join } from 'node:path';
import { HandfastError } from '../errors.ts';
import { MAX_CRL_ENTRIES } from '../spiffe/crl-reader.ts';
import { readStateJson, replacePrivate } from '../store/state-file.ts';
import type { RevocationReason } from './crl-writer.ts';
import type { IssuanceLedger } from './issuance-ledger.ts';
import { MAX_JWT_TTL_MS } from './jwt-keys.ts';
import type { LedgerEntry } from './ledger-entry.ts';
import {
  type Because,
  formatRevocations,
  isRevocationReason,
  type LiftedId,
  nothingRevoked,
  parseRevocations,
  REASON_TEXT,
  type RevocationState,
} from './revocation-state.ts';
import type { RevocationTarget } from './revocation-target.ts';

const HOUR = 3_600_000;
const MAX_FORCED = 11 * 365 * 24 * HOUR;
/**
 * How long after its expiry a certificate stays in the CRL: clocks differ, one scheduled CRL at least must have it (RFC 5280, 3.3), and our own clock
 * may be wrong for a while: what is dropped then would never come back.
 */
const MARGIN = 7 * 24 * HOUR;

/** `forceExpiresAt` (Unix milliseconds) lets a serial be revoked that the ledger does not know: until then it stays in the CRL. */
export interface RevocationRequest {
  readonly target: RevocationTarget;
  readonly reason: RevocationReason;
  readonly text: string;
  readonly forceExpiresAt?: number;
}

/** What a revocation adds: certificates that end, and what is not issued any more. Empty when all of it was revoked before. */
export interface RevocationEffect {
  readonly serials: readonly string[];
  readonly blockedIds: readonly string[];
  readonly blockedKeyIds: readonly string[];
  /** What the ledger knows of the serials. */
  readonly certificates: readonly LedgerEntry[];
}

/** What travels beside the JWT keys, in a key set that is bounded to twice as much. */
const MAX_LIFTED_BYTES = 256 * 1024;
/** What an SDS response can carry, with room for the signer's certificates. */
const MAX_CRL_BYTES = 3_500_000;

/** About what the CRL will be in PEM: 48 bytes of DER for each certificate, a blocked ID's own length and a little, by 4/3 and line ends. */
function crlBytes({ certificates, ids }: RevocationState): number {
  const der = [...ids.keys()].reduce((sum, id) => sum + id.length + 8, certificates.size * 48);
  return der * 1.36;
}

interface RevocationsOptions {
  readonly dir: string;
  readonly ledger: IssuanceLedger;
  /** Begin with nothing revoked when the file is not there: for a new CA alone. */
  readonly create: boolean;
  readonly now: () => number;
}

export class Revocations {
  readonly #options: RevocationsOptions;
  readonly #path: string;
  #state: RevocationState;

  private constructor(options: RevocationsOptions, found: { path: string; state: RevocationState }) {
    this.#options = options;
    this.#path = found.path;
    this.#state = found.state;
  }

  /** Throws STATE_INVALID. A file that is missing is no empty one: it would clear everything. */
  static async open(options: RevocationsOptions): Promise<Revocations> {
    const path = join(options.dir, 'revocations.json');
    const state = await readStateJson(path, parseRevocations);
    if (state === undefined && !options.create) {
      throw new HandfastError(
        'STATE_INVALID',
        `${path} is missing: restore it from a backup; or, to begin with nothing revoked, write ${formatRevocations(nothingRevoked).replace(/\s+/g, '')} into it`,
      );
    }
    const revocations = new Revocations(options, { path, state: state ?? nothingRevoked });
    if (state === undefined) await revocations.#replace(nothingRevoked);
    return revocations;
  }

  get state(): RevocationState {
    return this.#state;
  }

  /** Throws IDENTITY_BLOCKED for a blocked SPIFFE ID. */
  refuseBlocked(spiffeId: string): void {
    if (this.#state.ids.has(spiffeId)) throw new HandfastError('IDENTITY_BLOCKED', `${spiffeId} is blocked: nothing is issued to it`);
  }

  /** Throws CSR_REFUSED for a revoked key: another key may still have a certificate. */
  refuseRevokedKey(keyId: string): void {
    if (this.#state.keys.has(keyId)) throw new HandfastError('CSR_REFUSED', `key ${keyId} is revoked: make a new one`);
  }

  /**
   * Of SPIFFE IDs since when (Unix seconds) their JWT-SVIDs count, while one from before may be alive: those that are blocked no more, and those that were blocked of late, the latest first as far as there is room.
   * Blocked and lifted travel apart: whoever hears of the lift first must not take an old token for a good one.
   */
  jwtNotBefore(now: number): ReadonlyMap<string, number> {
    const lifted = [...this.#state.lifted.values()].filter((each) => hasTokens(each, now));
    const blocked = [...this.#state.ids.values()]
      .map(({ spiffeId, at }) => ({ spiffeId, until: secondAfter(at) }))
      .filter((each) => hasTokens(each, now))
      .sort((a, b) => b.until - a.until);
    const times = new Map<string, number>();
    let bytes = 0;
    for (const { spiffeId, until } of [...lifted, ...blocked]) {
      bytes += bytesOf(spiffeId);
      if (bytes > MAX_LIFTED_BYTES) break;
      times.set(spiffeId, until);
    }
    return times;
  }

  /** Exactly what `revoke` would add, with nothing done. Throws CONFIG_INVALID for a serial that the ledger does not know. */
  preview({ target, forceExpiresAt }: Pick<RevocationRequest, 'target' | 'forceExpiresAt'>): RevocationEffect {
    const { certificates, ids, keys } = this.#state;
    const live = this.#live(target);
    const fresh = live.filter(({ serial }) => !certificates.has(serial));
    const forced =
      target.kind === 'serial' && live.length === 0 && !certificates.has(target.serial)
        ? [this.#forced(target.serial, forceExpiresAt)]
        : [];
    return Object.freeze({
      serials: Object.freeze([...fresh.map(({ serial }) => serial), ...forced]),
      blockedIds: Object.freeze(target.kind === 'spiffeId' && !ids.has(target.spiffeId) ? [target.spiffeId] : []),
      blockedKeyIds: Object.freeze(target.kind === 'key' && !keys.has(target.keyId) ? [target.keyId] : []),
      certificates: Object.freeze(fresh),
    });
  }

  /** Does it, and tells what was added. Holds from the moment of the call; when it cannot be written down it is taken back and throws. */
  async revoke(request: RevocationRequest): Promise<RevocationEffect> {
    const { reason, text } = request;
    if (!isRevocationReason(reason)) throw new HandfastError('CONFIG_INVALID', `revocation reason ${JSON.stringify(reason)} is not known`);
    if (!REASON_TEXT.test(text))
      throw new HandfastError('CONFIG_INVALID', 'the text of a revocation is one line of at most 500 characters');
    const effect = this.preview(request);
    if (effect.serials.length + effect.blockedIds.length + effect.blockedKeyIds.length === 0) return effect;
    const because: Because = { at: this.#options.now(), reason, text };
    const expiry = new Map(effect.certificates.map((entry) => [entry.serial, entry.notAfter]));
    const added = effect.serials.map((serial) => ({ serial, notAfter: expiry.get(serial) ?? request.forceExpiresAt ?? 0, ...because }));
    const next: RevocationState = {
      crlNumber: this.#nextNumber(),
      certificates: new Map([...this.#state.certificates, ...added.map((each) => [each.serial, each] as const)]),
      ids: new Map([...this.#state.ids, ...effect.blockedIds.map((spiffeId) => [spiffeId, { spiffeId, ...because }] as const)]),
      keys: new Map([...this.#state.keys, ...effect.blockedKeyIds.map((keyId) => [keyId, { keyId, ...because }] as const)]),
      lifted: this.#state.lifted,
    };
    const size = next.certificates.size + next.ids.size;
    if (size > MAX_CRL_ENTRIES || crlBytes(next) > MAX_CRL_BYTES) {
      throw new HandfastError(
        'CONFIG_INVALID',
        `${size} revocations: a CRL of more than ${MAX_CRL_ENTRIES}, or of more than 3 MB, reaches nobody; rotate the root instead`,
      );
    }
    await this.#replace(next);
    return effect;
  }

  /** Lets an identity or a key have certificates again. What was revoked with it stays revoked until it expires. False when it was not blocked. */
  async lift(target: RevocationTarget): Promise<boolean> {
    if (target.kind === 'serial') {
      throw new HandfastError('CONFIG_INVALID', 'a revoked certificate stays revoked (RFC 5280, 5.3.1): have a new one issued instead');
    }
    const [ids, keys] = [new Map(this.#state.ids), new Map(this.#state.keys)];
    if (!(target.kind === 'spiffeId' ? ids.delete(target.spiffeId) : keys.delete(target.keyId))) return false;
    const now = this.#options.now();
    const lifted = new Map([...this.#state.lifted].filter(([, each]) => hasTokens(each, now)));
    // Not the time of the block: our clock may have been wrong then, and is what new tokens are dated by now.
    if (target.kind === 'spiffeId') lifted.set(target.spiffeId, { spiffeId: target.spiffeId, until: secondAfter(now) });
    if ([...lifted.keys()].reduce((bytes, id) => bytes + bytesOf(id), 0) > MAX_LIFTED_BYTES)
      throw new HandfastError(
        'CONFIG_INVALID',
        `${lifted.size - 1} SPIFFE IDs were lifted while their JWT-SVIDs from before may be alive, and no more can be told apart from new ones: wait an hour`,
      );
    await this.#replace({ ...this.#state, crlNumber: this.#nextNumber(), ids, keys, lifted });
    return true;
  }

  /** Drops what has expired and takes a new CRL number, before the next CRL is signed for no other reason than the time. */
  async advance(): Promise<void> {
    const now = this.#options.now();
    const certificates = new Map([...this.#state.certificates].filter(([, { notAfter }]) => notAfter + MARGIN > now));
    const lifted = new Map([...this.#state.lifted].filter(([, each]) => hasTokens(each, now)));
    await this.#replace({ ...this.#state, crlNumber: this.#nextNumber(), certificates, lifted });
  }

  #live(target: RevocationTarget): readonly LedgerEntry[] {
    const { ledger } = this.#options;
    if (target.kind === 'key') return ledger.byKeyId(target.keyId);
    if (target.kind === 'spiffeId') return ledger.bySpiffeId(target.spiffeId);
    const entry = ledger.bySerial(target.serial);
    return entry === undefined ? [] : [entry];
  }

  #forced(serial: string, expiresAt: number | undefined): string {
    const now = this.#options.now();
    if (expiresAt === undefined) {
      throw new HandfastError(
        'CONFIG_INVALID',
        `no live certificate ${serial} is in the ledger: check the serial; one issued before there was a ledger needs --expires-in, for how long it still lives`,
      );
    }
    if (!Number.isSafeInteger(expiresAt) || !(expiresAt > now && expiresAt <= now + MAX_FORCED))
      throw new HandfastError('CONFIG_INVALID', `certificate ${serial}: its expiry must lie ahead, by at most 11 years`);
    return serial;
  }

  /** At least the Unix time in seconds, so that numbers rise even when the state was lost. */
  #nextNumber(): number {
    return Math.max(this.#state.crlNumber + 1, Math.floor(this.#options.now() / 1000));
  }

  async #replace(next: RevocationState): Promise<void> {
    const previous = this.#state;
    // From here on nothing is issued against it, also while the disk is busy.
    this.#state = next;
    try {
      await replacePrivate(this.#path, formatRevocations(next));
    } catch (error) {
      this.#state = previous;
      throw error;
    }
  }
}

/** Tokens carry whole seconds. */
function secondAfter(at: number): number {
  return Math.floor(at / 1000) + 1;
}

function bytesOf(spiffeId: string): number {
  return spiffeId.length + 24;
}

/** Whether a token from before `until` may still be alive, by a clock that is a minute off. */
function hasTokens({ until }: LiftedId, now: number): boolean {
  return now < until * 1000 + MAX_JWT_TTL_MS + 60_000;
}
