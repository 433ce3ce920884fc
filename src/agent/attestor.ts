// Who a local process may be, beyond what it says itself: the registrations, and its pod, decide by what the kernel knows of it.

import type { PeerCredentials } from '../net/peer-credentials.ts';
import { type PodCgroups, podOfToken } from './pod-cgroups.ts';
import type { Registration, WorkloadRegistrations } from './workload-registrations.ts';

/** Why a token is not taken from a process: what the process is told, and what the log says besides. */
export interface Objection {
  readonly told: string;
  readonly said: string;
  readonly fields?: Readonly<Record<string, string>>;
}

export class Attestor {
  readonly #registrations: WorkloadRegistrations | undefined;
  readonly #pods: PodCgroups | undefined;

  /** Without registrations and pods a token stands alone; without registrations a caller without one is nobody. */
  constructor(registrations: WorkloadRegistrations | undefined, pods?: PodCgroups) {
    this.#registrations = registrations;
    this.#pods = pods;
  }

  /** Of a caller whose token the CA has proven to be of this ID; undefined if its process may present it. */
  objection(peer: PeerCredentials, { spiffeId, token }: { spiffeId: string; token: string }): Objection | undefined {
    if (!this.mayPresent(peer, spiffeId))
      return {
        told: 'this process is not registered for the workload whose token it presents',
        said: 'a process presented the token of a workload that it is not registered for',
      };
    if (this.#pods === undefined) return undefined;
    const [pod, tokenPod] = [this.#pods.podOf(peer.cgroups), podOfToken(token)];
    if (pod !== undefined && pod === tokenPod) return undefined;
    return {
      told: 'this process is not in the pod whose token it presents',
      said: 'a process presented the token of a pod that it is not in',
      fields: { pod: pod ?? 'none (by --pod-cgroups)', tokenPod: tokenPod ?? 'none' },
    };
  }

  /** The second proof for a caller whose token has proven an ID: where there are registrations, its process must be registered for that ID. */
  mayPresent(peer: PeerCredentials, spiffeId: string): boolean {
    if (this.#registrations === undefined) return true;
    return this.workloadsOf(peer).some((registration) => registration.spiffeId.uri === spiffeId);
  }

  /** Who a caller is that has no token: none, one or several workloads, each once, in the order of the file. */
  workloadsOf(peer: PeerCredentials): Registration[] {
    // Whoever holds the connection of a process that has ended is somebody else.
    if (this.#registrations === undefined || !peer.alive()) return [];
    const byId = new Map<string, Registration>();
    for (const registration of this.#registrations.match(peer)) {
      if (!byId.has(registration.spiffeId.uri)) byId.set(registration.spiffeId.uri, registration);
    }
    return [...byId.values()];
  }

  /** Calls back whenever the registrations have changed. Returns the way to stop. */
  subscribe(subscriber: () => void): () => void {
    return this.#registrations?.registrations.subscribe(() => subscriber()) ?? (() => undefined);
  }
}
