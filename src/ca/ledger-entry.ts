// One issued certificate, as a line of the ledger.

import { createHash, type KeyObject } from 'node:crypto';
import { parseSpiffeId } from '../spiffe/spiffe-id.ts';
import { spkiOf } from '../spiffe/spki.ts';
import { parseStrictObject } from '../spiffe/strict-json.ts';
import { onlyFields, textField, wholeField } from './state-fields.ts';

/** Times in Unix milliseconds, serials in upper-case hex as OpenSSL prints them, key IDs as `keyIdOf` makes them. */
export interface LedgerEntry {
  readonly serial: string;
  readonly spiffeId: string;
  readonly keyId: string;
  readonly notBefore: number;
  readonly notAfter: number;
  /** The intermediate that signed it, and the root above that one. */
  readonly issuerKeyId: string;
  readonly rootKeyId: string;
  /** Who asked for it; empty when nobody is known. */
  readonly node: string;
  /** `workload`, `node`, or another short word. */
  readonly purpose: string;
}

export const SERIAL = /^([0-9A-F]{2}){1,20}$/;
export const KEY_ID = /^[0-9a-f]{64}$/;
const NODE = /^.{0,512}$/su;
const PURPOSE = /^[a-z][a-z0-9-]{0,31}$/;
const NAMES = ['serial', 'spiffeId', 'keyId', 'notBefore', 'notAfter', 'issuerKeyId', 'rootKeyId', 'node', 'purpose'];

/** Hex SHA-256 of the SubjectPublicKeyInfo in DER. */
export function keyIdOf(publicKey: KeyObject): string {
  return createHash('sha256').update(spkiOf(publicKey)).digest('hex');
}

export function formatEntry(entry: LedgerEntry): string {
  return `${JSON.stringify(entry)}\n`;
}

/** Throws a plain Error for anything that `formatEntry` would not have written. */
export function parseEntry(line: string): LedgerEntry {
  const fields = parseStrictObject(line);
  onlyFields(fields, NAMES);
  return Object.freeze({
    serial: textField(fields, 'serial', SERIAL),
    spiffeId: parseSpiffeId(textField(fields, 'spiffeId')).uri,
    keyId: textField(fields, 'keyId', KEY_ID),
    notBefore: wholeField(fields, 'notBefore'),
    notAfter: wholeField(fields, 'notAfter'),
    issuerKeyId: textField(fields, 'issuerKeyId', KEY_ID),
    rootKeyId: textField(fields, 'rootKeyId', KEY_ID),
    node: textField(fields, 'node', NODE),
    purpose: textField(fields, 'purpose', PURPOSE),
  });
}
