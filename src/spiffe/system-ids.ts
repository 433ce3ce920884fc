// The SPIFFE IDs of the mesh's own parts. Workloads are /ns/NAMESPACE/sa/NAME, so none of them can be one of these.

import { HandfastError } from '../errors.ts';
import { parseSpiffeId, type SpiffeId } from './spiffe-id.ts';

const AGENT_PATH = /^\/handfast\/agent\/([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)$/;

export function caId(trustDomain: string): SpiffeId {
  return parseSpiffeId(`spiffe://${trustDomain}/handfast/ca`);
}

export function controlId(trustDomain: string): SpiffeId {
  return parseSpiffeId(`spiffe://${trustDomain}/handfast/control`);
}

/** Names that ledger and status give to the mesh's own parts. */
const RESERVED = new Set(['local', 'control', 'ca']);

/** Throws CONFIG_INVALID for a name that Kubernetes would not accept for a node, or that is taken. */
export function agentId(trustDomain: string, node: string): SpiffeId {
  const path = `/handfast/agent/${node}`;
  if (!AGENT_PATH.test(path) || RESERVED.has(node))
    throw new HandfastError(
      'CONFIG_INVALID',
      `node name ${JSON.stringify(node)}: lower-case letters, digits, '-' and '.', and none of ${[...RESERVED].join(', ')}`,
    );
  return parseSpiffeId(`spiffe://${trustDomain}${path}`);
}

/** The node of an agent's ID; undefined for anybody else's. */
export function nodeOf({ path }: SpiffeId): string | undefined {
  return AGENT_PATH.exec(path)?.[1];
}
