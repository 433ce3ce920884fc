// What agents report of their sidecars' connections, and which of them have not: whoever asks before revoking must know what is missing.

import { ConfirmedPolicies } from '../discovery/confirmed-policies.ts';
import type { ConnectionReport, HeldPolicies, LivePeer } from '../wire/gen/handfast/report/v1/report.ts';

/** What the sidecars of a node are connected to now. `complete`: it has reported, and all of it. */
export interface NodeReport {
  readonly node: string;
  readonly state: 'complete' | 'truncated' | 'missing';
  readonly peers: readonly LivePeer[];
}

export class NodeReports {
  readonly #connected = new Map<object, string>();
  readonly #reports = new Map<object, NodeReport>();
  /** Of sidecars that come themselves. */
  readonly sidecars = new ConfirmedPolicies();
  /** What each agent says of its own. */
  readonly #held = new Map<object, readonly HeldPolicies[]>();
  #reported = 0;

  /** Grows with each change of what is held. */
  get revision(): number {
    return this.#reported + this.sidecars.revision;
  }

  /** An agent that is served, by whatever stream. */
  connect(stream: object, node: string): void {
    this.#connected.set(stream, node);
  }

  report(stream: object, { node, report }: { node: string; report: ConnectionReport }): void {
    // What still comes of a stream that has ended would never be taken back.
    if (!this.#connected.has(stream)) return;
    this.#reports.set(stream, { node, state: report.truncated ? 'truncated' : 'complete', peers: report.peers });
    this.#held.set(stream, report.held);
    this.#reported++;
  }

  /** What sidecars have confirmed, by pod (`namespace/name`): by their agents' word, and by their own where they have none. */
  get heldByPod(): ReadonlyMap<string, readonly HeldPolicies[]> {
    const all = [...this.#held.values()].flat();
    return Map.groupBy([...all, ...this.sidecars.all], ({ pod }) => pod);
  }

  end(stream: object): void {
    this.#connected.delete(stream);
    this.#reports.delete(stream);
    if (this.#held.delete(stream)) this.#reported++;
  }

  /** Every node that has reported or is connected. */
  get all(): readonly NodeReport[] {
    const reports = [...this.#reports.values()];
    const heard = new Set(reports.map(({ node }) => node));
    const silent = [...new Set(this.#connected.values())].filter((node) => !heard.has(node));
    return [...reports, ...silent.map((node): NodeReport => ({ node, state: 'missing', peers: [] }))];
  }
}
