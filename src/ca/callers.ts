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

/** Throws PERMISSION_DENIED for a member of the mesh that is neither agent nor control. */
export function caCaller(call: { getPeer(): string }): CaCaller {
  const caller = callerOf(call);
  if (caller === undefined) throw statusError(status.UNAUTHENTICATED, 'the caller is not known');
  if (caller.kind === 'unix') return { kind: 'agent', name: LOCAL_NODE };
  if (caller.kind === 'anonymous') return { kind: 'anonymous', name: `anonymous ${caller.address}` };
  const { id } = caller.peer;
  const node = nodeOf(id);
  if (node !== undefined) return { kind: 'agent', name: node };
  if (id.uri === controlId(id.trustDomain).uri) return { kind: 'control' };
  throw statusError(status.PERMISSION_DENIED, `${id.uri} is neither an agent nor control`);
}
