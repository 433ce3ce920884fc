// Agents and control of a cluster, which prove themselves by their service accounts' tokens: whose account it is, the API server says, and on which node its pod runs.

import { HandfastError } from '../errors.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { agentId, controlId } from '../spiffe/system-ids.ts';
import type { TokenProver } from './local-token.ts';
import type { ServiceAccount } from './service-account.ts';

/** Of tokens that prove a node's agent, or control: a workload's token is made for another audience, and proves neither. */
export const NODE_AUDIENCE = 'handfast-node';

export interface NodeAccountsOptions {
  /** Of tokens made for NODE_AUDIENCE. */
  readonly prover: TokenProver;
  readonly agent: ServiceAccount;
  readonly control: ServiceAccount;
  readonly trustDomain: string;
}

export class NodeAccounts {
  readonly #options: NodeAccountsOptions;

  constructor(options: NodeAccountsOptions) {
    this.#options = options;
  }

  /** Whose certificate the token's holder may have. Throws TOKEN_REFUSED, or UNAVAILABLE when the API server cannot be asked. */
  async prove(token: string): Promise<SpiffeId> {
    const { prover, agent, control, trustDomain } = this.#options;
    const proven = await prover.prove(token);
    if (isAccount(proven, control)) return controlId(trustDomain);
    if (!isAccount(proven, agent))
      throw new HandfastError(
        'TOKEN_REFUSED',
        `${proven.namespace}/${proven.serviceAccount} is neither the agents' service account nor control's`,
      );
    if (proven.nodeName === undefined)
      throw new HandfastError(
        'TOKEN_REFUSED',
        "the API server does not say on which node the agent's pod runs: Kubernetes 1.30 or later does",
      );
    return agentId(trustDomain, proven.nodeName);
  }
}

/** A join token is random base64url, without a dot; a service account's is a JWT. */
export function isAccountToken(token: string): boolean {
  return token.split('.').length === 3;
}

function isAccount(a: ServiceAccount, b: ServiceAccount): boolean {
  return a.namespace === b.namespace && a.serviceAccount === b.serviceAccount;
}
