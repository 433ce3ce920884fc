// X.509 v2 certificate revocation lists (RFC 5280, section 5), signed through a Signer, with the blocked SPIFFE IDs in an extension of our own.

import { OID_AUTHORITY_KEY_ID, OID_BLOCKED_IDS, OID_CRL_NUMBER, OID_REASON_CODE } from '../spiffe/crl-reader.ts';
import {
  type Asn1,
  enumerated,
  explicit,
  extension,
  implicit,
  pemOf,
  sequence,
  sequenceOf,
  time,
  toDer,
  unsignedInteger,
} from '../spiffe/der-builder.ts';
import { commonNameOf, ecdsaSha256, type Issuer, signed, subjectKeyId } from './certificate.ts';

/** RFC 5280, 5.3.1, without what is for delta CRLs, holds and other kinds of certificates. */
export const revocationReasons = {
  unspecified: 0,
  keyCompromise: 1,
  affiliationChanged: 3,
  superseded: 4,
  cessationOfOperation: 5,
  privilegeWithdrawn: 9,
} as const;

export type RevocationReason = keyof typeof revocationReasons;

/** `serial` in hex, `at` in Unix milliseconds. */
export interface RevokedSerial {
  readonly serial: string;
  readonly at: number;
  readonly reason: RevocationReason;
}

/** The CRL in PEM. Times in Unix milliseconds. */
export async function createCrl(of: {
  issuer: Issuer;
  number: number;
  thisUpdate: number;
  nextUpdate: number;
  revoked: readonly RevokedSerial[];
  blockedIds: readonly string[];
}): Promise<string> {
  // An empty list of entries is left out (RFC 5280, 5.1.2.6).
  const entries = of.revoked.length === 0 ? [] : [sequenceOf(of.revoked.map(entry))];
  const blocked = of.blockedIds.map((id) => implicit(6, Buffer.from(id, 'latin1')));
  const tbs = sequence(
    unsignedInteger(Buffer.of(1)),
    ecdsaSha256(),
    commonNameOf(of.issuer),
    time(of.thisUpdate),
    time(of.nextUpdate),
    ...entries,
    explicit(
      0,
      sequence(
        extension(OID_AUTHORITY_KEY_ID, { critical: false, value: sequence(implicit(0, subjectKeyId(of.issuer.signer.publicKey))) }),
        extension(OID_CRL_NUMBER, { critical: false, value: unsignedInteger(bigEndian(of.number)) }),
        ...(blocked.length === 0 ? [] : [extension(OID_BLOCKED_IDS, { critical: false, value: sequenceOf(blocked) })]),
      ),
    ),
  );
  return pemOf('X509 CRL', toDer(await signed(tbs, of.issuer)));
}

function entry({ serial, at, reason }: RevokedSerial): Asn1 {
  const fields = [unsignedInteger(Buffer.from(serial, 'hex')), time(at)];
  // "unspecified" is said by saying nothing (RFC 5280, 5.3.1).
  if (reason === 'unspecified') return sequence(...fields);
  const code = extension(OID_REASON_CODE, { critical: false, value: enumerated(revocationReasons[reason]) });
  return sequence(...fields, sequence(code));
}

function bigEndian(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}
