// The keys that sign JWT-SVIDs, as jwt-keys.json has them, and which of them does what at a given time. Pure.

import { type Fields, listField, onlyFields, textField, wholeField } from './state-fields.ts';

/** `pem` is what the key store keeps of the key. `signsFrom` is Unix milliseconds: until then a key is only published. */
export interface JwtKeyRecord {
  readonly kid: string;
  readonly pem: string;
  readonly signsFrom: number;
}

/** `sequence` rises with every change of the published set. Keys are in the order in which they sign. */
export interface JwtKeyState {
  readonly sequence: number;
  readonly keys: readonly JwtKeyRecord[];
}

export const KID = /^[A-Za-z0-9_-]{43}$/;
const MAX_KEYS = 50;

export function formatJwtKeys({ sequence, keys }: JwtKeyState): string {
  return `${JSON.stringify({ version: 1, sequence, keys }, undefined, 1)}\n`;
}

/** Throws a plain Error. */
export function parseJwtKeys(fields: Fields): JwtKeyState {
  onlyFields(fields, ['version', 'sequence', 'keys']);
  if (fields.version !== 1) throw new Error(`version ${JSON.stringify(fields.version)} is not known`);
  const keys = listField(fields, 'keys', (entry) => {
    onlyFields(entry, ['kid', 'pem', 'signsFrom']);
    return { kid: textField(entry, 'kid', KID), pem: textField(entry, 'pem'), signsFrom: wholeField(entry, 'signsFrom') };
  });
  if (keys.length > MAX_KEYS) throw new Error(`${keys.length} keys, at most ${MAX_KEYS} are accepted`);
  if (new Set(keys.map(({ kid }) => kid)).size !== keys.length) throw new Error('a kid stands twice');
  if (keys.some((key, index) => key.signsFrom < (keys[index - 1]?.signsFrom ?? 0))) throw new Error('the keys are out of order');
  return { sequence: wholeField(fields, 'sequence'), keys };
}

/** The key that signs at `now`: the latest whose time has come; the first when a clock that was set back leaves none. */
export function signingKey(keys: readonly JwtKeyRecord[], now: number): JwtKeyRecord | undefined {
  return keys.findLast(({ signsFrom }) => signsFrom <= now) ?? keys[0];
}

/** Without those whose successor has been signing for so long that their last token has expired. */
export function withoutSpent(keys: readonly JwtKeyRecord[], { now, keepMs }: { now: number; keepMs: number }): JwtKeyRecord[] {
  return keys.filter((_, index) => {
    const successor = keys[index + 1];
    return successor === undefined || successor.signsFrom + keepMs > now;
  });
}

/** When a key that is still to be made should begin to sign; undefined while it is too early to publish it, or one is waiting. */
export function nextKeyDue(
  keys: readonly JwtKeyRecord[],
  of: { now: number; lifetimeMs: number; publishAheadMs: number },
): number | undefined {
  const last = keys.at(-1);
  // Nothing else can sign: this one cannot be announced first.
  if (last === undefined) return of.now;
  if (last.signsFrom > of.now || of.now < last.signsFrom + of.lifetimeMs - of.publishAheadMs) return undefined;
  return Math.max(of.now + of.publishAheadMs, last.signsFrom + of.lifetimeMs);
}
