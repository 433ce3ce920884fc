// The verdict on a JWT-SVID, in the words of the identity API. Pure.

import { JwtRefusal, type JwtRefusalReason } from '../spiffe/jwt-refusal.ts';
import { type JwtTrust, judgeJwtSvid } from '../spiffe/jwt-trust.ts';
import { workloadOf } from '../spiffe/spiffe-id.ts';

/** `namespace` and `serviceAccount` are there for workloads of a mesh: `/ns/NAMESPACE/sa/SERVICE-ACCOUNT`. */
export interface ValidJwtSvid {
  readonly valid: true;
  readonly spiffeId: string;
  readonly trustDomain: string;
  readonly namespace: string | null;
  readonly serviceAccount: string | null;
  readonly audience: readonly string[];
  readonly expiresAt: string;
}

export interface InvalidJwtSvid {
  readonly valid: false;
  readonly reason: JwtRefusalReason;
  readonly message: string;
}

/** A token may be 16 KiB, and what is wrong with it is said with its own words. */
const MAX_MESSAGE = 300;

export function verdictOn(token: string, of: { audience: string; trust: JwtTrust; now: number }): ValidJwtSvid | InvalidJwtSvid {
  try {
    const { id, claims, expiresAt } = judgeJwtSvid(token, of);
    const { namespace, serviceAccount } = workloadOf(id) ?? { namespace: null, serviceAccount: null };
    return {
      valid: true,
      spiffeId: id.uri,
      trustDomain: id.trustDomain,
      namespace,
      serviceAccount,
      audience: [claims.aud].flat().map(String),
      expiresAt: new Date(expiresAt).toISOString(),
    };
  } catch (error) {
    if (!(error instanceof JwtRefusal)) throw error;
    return { valid: false, reason: error.reason, message: error.message.slice(0, MAX_MESSAGE) };
  }
}
