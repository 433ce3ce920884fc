// Who a local process may be, beyond what it says itself: the registrations decide by what the kernel knows of it.

import type { PeerCredentials } from '../net/peer-credentials.ts';
import type { Registration, WorkloadRegistrations } from './workload-registrations.ts';

export class Attestor {
  readonly #registrations: WorkloadRegistrations | undefined;

  /** Without registrations a token stands alone, and a caller without one is nobody. */
  constructor(registrations: WorkloadRegistrations | undefined) {
    this.#registrations = registrations;
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
