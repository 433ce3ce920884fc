// Why a token is not valid, by a code that stays: applications branch on it, and the message is for people.

import { HandfastError } from '../errors.ts';

export type JwtRefusalReason =
  | 'MALFORMED'
  | 'TOO_LONG'
  | 'HEADER_REFUSED'
  | 'ALGORITHM_REFUSED'
  | 'TYPE_REFUSED'
  | 'KEY_UNKNOWN'
  | 'SIGNATURE_WRONG'
  | 'TRUST_DOMAIN_UNKNOWN'
  | 'SUBJECT_INVALID'
  | 'AUDIENCE_MISSING'
  | 'AUDIENCE_MISMATCH'
  | 'EXPIRY_MISSING'
  | 'EXPIRED'
  | 'NOT_YET_VALID'
  | 'TIME_INVALID'
  /** Its SPIFFE ID is blocked. */
  | 'IDENTITY_BLOCKED'
  /** Its SPIFFE ID was blocked since it was signed, and is not any more. */
  | 'BEFORE_REVOCATION';

export class JwtRefusal extends HandfastError {
  readonly reason: JwtRefusalReason;

  constructor(reason: JwtRefusalReason, message: string, options: { cause?: unknown } = {}) {
    super('JWT_INVALID', message, options);
    this.reason = reason;
  }
}
