// What agents report of their sidecars' connections, and which of them have not: whoever asks before revoking must know what is missing.

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
  /** By pod, what each stream says of it. */
  readonly #held = new Map<string, Map<object, HeldPolicies>>();

  /** An agent that is served, by whatever stream. */
  connect(stream: object, node: string): void {
    this.#connected.set(stream, node);
  }

  report(stream: object, { node, report }: { node: string; report: ConnectionReport }): void {
    // What still comes of a stream that has ended would never be taken back.
    if (!this.#connected.has(stream)) return;
    this.#reports.set(stream, { node, state: report.truncated ? 'truncated' : 'complete', peers: report.peers });
    this.#forgetHeld(stream);
    for (const held of report.held) {
      const ofPod = this.#held.get(held.pod) ?? new Map<object, HeldPolicies>();
      this.#held.set(held.pod, ofPod.set(stream, held));
    }
  }

  /** Whether a sidecar of the pod (`namespace/name`) that has proven to be `reporter` has confirmed these policies (discovery/own-policies.ts). */
  holds(pod: string, of: { reporter: string; digest: string }): boolean {
    for (const { reporter, digest } of this.#held.get(pod)?.values() ?? [])
      if (reporter === of.reporter && digest === of.digest) return true;
    return false;
  }

  end(stream: object): void {
    this.#connected.delete(stream);
    this.#reports.delete(stream);
    this.#forgetHeld(stream);
  }

  #forgetHeld(stream: object): void {
    for (const [pod, ofPod] of this.#held) if (ofPod.delete(stream) && ofPod.size === 0) this.#held.delete(pod);
  }

  /** Every node that has reported or is connected. */
  get all(): readonly NodeReport[] {
    const reports = [...this.#reports.values()];
    const heard = new Set(reports.map(({ node }) => node));
    const silent = [...new Set(this.#connected.values())].filter((node) => !heard.has(node));
    return [...reports, ...silent.map((node): NodeReport => ({ node, state: 'missing', peers: [] }))];
  }
}
