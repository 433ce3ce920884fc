// What an authority is made of, opened in the order that a crash between any two leaves well: rotation.json is written when ledger and
// revocations are there, so where it stands they must not be missing.

import { sweepTemporaries } from '../store/state-file.ts';
import type { AuthorityOptions } from './authority-options.ts';
import { IssuanceLedger } from './issuance-ledger.ts';
import { IssuanceLimit } from './issuance-limit.ts';
import { JwtKeys } from './jwt-keys.ts';
import { Revocations } from './revocations.ts';
import { RootRotation } from './root-rotation.ts';
import { diskKeys } from './signer.ts';
import { lockState, type StateLock } from './state-lock.ts';
import { TrustPublisher } from './trust-publisher.ts';

export interface AuthorityParts {
  readonly lock: StateLock;
  readonly ledger: IssuanceLedger;
  readonly revocations: Revocations;
  readonly rotation: RootRotation;
  readonly jwtKeys: JwtKeys;
  readonly limit: IssuanceLimit;
  readonly jwtLimit: IssuanceLimit;
  readonly publisher: TrustPublisher;
}

/** Throws STATE_INVALID, and then holds nothing any more. */
export async function openParts(options: AuthorityOptions & { crlTtlMs: number }): Promise<AuthorityParts> {
  const { dir, trustDomain, now, log, keys = diskKeys, crlTtlMs } = options;
  const lock = await lockState(dir);
  let ledger: IssuanceLedger | undefined;
  try {
    await sweepTemporaries(dir);
    const create = !(await RootRotation.isInitialised(dir));
    ledger = await IssuanceLedger.open({ dir, create, now, ...(log === undefined ? {} : { log }) });
    const revocations = await Revocations.open({ dir, ledger, create, now });
    const rotation = await RootRotation.open({ dir, trustDomain, keys, now });
    const jwtKeys = await JwtKeys.open({ dir, keys, now, ...options.jwtKeys });
    const publisher = new TrustPublisher({ rotation, revocations, jwtKeys, jwtIssuer: options.jwtIssuer, crlTtlMs, now });
    const [limit, jwtLimit] = [new IssuanceLimit(options.limit), new IssuanceLimit(options.limit)];
    return { lock, ledger, revocations, rotation, jwtKeys, limit, jwtLimit, publisher };
  } catch (error) {
    await ledger?.close();
    await lock.release();
    throw error;
  }
}

export async function closeParts({ ledger, lock }: AuthorityParts): Promise<void> {
  try {
    await ledger.close();
  } finally {
    await lock.release();
  }
}
