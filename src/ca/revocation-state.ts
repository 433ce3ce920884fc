// What has been revoked and why, as revocations.json has it.

import { parseSpiffeId } from '../spiffe/spiffe-id.ts';
import { type RevocationReason, revocationReasons } from './crl-writer.ts';
import { KEY_ID, SERIAL } from './ledger-entry.ts';
import { type Fields, listField, onlyFields, textField, wholeField } from './state-fields.ts';

/** Why and when (Unix milliseconds), with what the operator had to say. */
export interface Because {
  readonly at: number;
  readonly reason: RevocationReason;
  readonly text: string;
}

/** `notAfter` is when the certificate expires, and nobody needs to be told any more. */
export interface RevokedCertificate extends Because {
  readonly serial: string;
  readonly notAfter: number;
}

export interface BlockedId extends Because {
  readonly spiffeId: string;
}

export interface RevokedKey extends Because {
  readonly keyId: string;
}

/** A SPIFFE ID that is blocked no more: its JWT-SVIDs from before `until` (Unix seconds) stay refused. */
export interface LiftedId {
  readonly spiffeId: string;
  readonly until: number;
}

/** `crlNumber` is that of the last CRL. Each list is by what it is about. */
export interface RevocationState {
  readonly crlNumber: number;
  readonly certificates: ReadonlyMap<string, RevokedCertificate>;
  readonly ids: ReadonlyMap<string, BlockedId>;
  readonly keys: ReadonlyMap<string, RevokedKey>;
  readonly lifted: ReadonlyMap<string, LiftedId>;
}

export const nothingRevoked: RevocationState = {
  crlNumber: 0,
  certificates: new Map(),
  ids: new Map(),
  keys: new Map(),
  lifted: new Map(),
};

/** What an operator may write beside a revocation: one line, so that it stays one in every log. */
export const REASON_TEXT = /^[^\p{Cc}]{0,500}$/u;

export function formatRevocations({ crlNumber, certificates, ids, keys, lifted }: RevocationState): string {
  const lists = { certificates: [...certificates.values()], ids: [...ids.values()], keys: [...keys.values()] };
  // Left out where there are none: an earlier version reads the file then.
  const content = { version: 1, crlNumber, ...lists, ...(lifted.size === 0 ? {} : { lifted: [...lifted.values()] }) };
  return `${JSON.stringify(content, undefined, 1)}\n`;
}

/** Throws a plain Error. */
export function parseRevocations(fields: Fields): RevocationState {
  onlyFields(fields, ['version', 'crlNumber', 'certificates', 'ids', 'keys', 'lifted']);
  if (fields.version !== 1) throw new Error(`version ${JSON.stringify(fields.version)} is not known`);
  const certificates = listField(fields, 'certificates', (entry) => ({
    serial: textField(entry, 'serial', SERIAL),
    notAfter: wholeField(entry, 'notAfter'),
    ...because(entry, ['serial', 'notAfter']),
  }));
  const ids = listField(fields, 'ids', (entry) => ({
    spiffeId: parseSpiffeId(textField(entry, 'spiffeId')).uri,
    ...because(entry, ['spiffeId']),
  }));
  const keys = listField(fields, 'keys', (entry) => ({ keyId: textField(entry, 'keyId', KEY_ID), ...because(entry, ['keyId']) }));
  const lifted =
    fields.lifted === undefined
      ? []
      : listField(fields, 'lifted', (entry) => {
          onlyFields(entry, ['spiffeId', 'until']);
          return { spiffeId: parseSpiffeId(textField(entry, 'spiffeId')).uri, until: wholeField(entry, 'until') };
        });
  return {
    crlNumber: wholeField(fields, 'crlNumber'),
    certificates: new Map(certificates.map((each) => [each.serial, each])),
    ids: new Map(ids.map((each) => [each.spiffeId, each])),
    keys: new Map(keys.map((each) => [each.keyId, each])),
    lifted: new Map(lifted.map((each) => [each.spiffeId, each])),
  };
}

function because(entry: Fields, besides: readonly string[]): Because {
  onlyFields(entry, [...besides, 'at', 'reason', 'text']);
  const reason = entry.reason;
  if (!isRevocationReason(reason)) throw new Error(`reason ${JSON.stringify(reason)} is not known`);
  return { at: wholeField(entry, 'at'), reason, text: textField(entry, 'text', REASON_TEXT) };
}

export function isRevocationReason(value: unknown): value is RevocationReason {
  return typeof value === 'string' && Object.hasOwn(revocationReasons, value);
}
