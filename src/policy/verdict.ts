// What a decision says: yes, or a coded no with its reason.

import type { ErrorCode } from '../errors.ts';

export type Verdict = { readonly allowed: true } | { readonly allowed: false; readonly code: ErrorCode; readonly reason: string };

/** On a connection that is open: let it be, end it when it is quiet, or end it now. */
export type Judgement = Verdict | { readonly allowed: 'drain'; readonly code: ErrorCode; readonly reason: string };

export const ALLOWED: Verdict = Object.freeze({ allowed: true });
