// Who may ask the CA for what: agents and control by their node certificates, or by the socket that only root may open.

import { status } from '@grpc/grpc-js';
import { controlId, nodeOf } from '../spiffe/system-ids.ts';
import { callerOf } from '../wire/caller.ts';
import { statusError } from '../wire/grpc.ts';

/** An agent (`name` as the ledger has it), control, or somebody who has proven nothing of itself yet. */
export type CaCaller =
  | { readonly kind: 'agent'; readonly name: string }
  | { readonly kind: 'control' }
  | { readonly kind: 'anonymous'; readonly name: string };

/** The machine's own agent, on the socket that only root may open. */
export const LOCAL_NODE = 'local';

/** `now` in Unix milliseconds. */
export interface CallerRules {
  readonly trustDomain: string;
  readonly now: number;
}

/** Throws UNAUTHENTICATED for a certificate that has ended, PERMISSION_DENIED for a member of a mesh that is neither agent nor control of ours. */
export function caCaller(call: { getPeer(): string }, { trustDomain, now }: CallerRules): CaCaller {
  const caller = callerOf(call);
  if (caller === undefined) throw statusError(status.UNAUTHENTICATED, 'the caller is not known');
  if (caller.kind === 'unix') return { kind: 'agent', name: LOCAL_NODE };
  if (caller.kind === 'anonymous') return { kind: 'anonymous', name: `anonymous ${caller.address}` };
  const { id, notAfter } = caller.peer;
  // The connection ends with its certificate, but timers are late when there is much to do. Written so that a clock that is no number lets nobody in.
  if (!(now <= notAfter)) throw statusError(status.UNAUTHENTICATED, `the certificate of ${id.uri} has expired`);
  const ours = id.trustDomain === trustDomain;
  const node = ours ? nodeOf(id) : undefined;
  if (node !== undefined) return { kind: 'agent', name: node };
  if (ours && id.uri === controlId(id.trustDomain).uri) return { kind: 'control' };
  throw statusError(status.PERMISSION_DENIED, `${id.uri} is neither an agent nor control of this mesh`);
}
