// Who breaks if this becomes STRICT? By what the serving pods' own sidecars have seen, and by nothing else: what a client says of itself proves nothing about others.

import { isUnproven, type LedgerEntry } from '../../observe/ledger-entry.ts';
import type { MeshSnapshot } from '../../policy/mesh-snapshot.ts';
import type { TlsSwitch, TrafficPolicy, Workload } from '../../policy/model.ts';
import { type Conversation, conversations } from './conversations.ts';
import { type LedgerInstance, lastSeenIn } from './ledger-instance.ts';
import { limitsOf, type StrictLimit } from './strict-limits.ts';
import { type StrictScope, strictScope } from './strict-scope.ts';
import { answeringIn, podOf } from './successors.ts';

export interface StrictQuestion {
  readonly namespace: string;
  readonly workload?: string | undefined;
  /** For how long each pod must have been observed. */
  readonly minObservedMs: number;
  /** Who was seen last before that is not counted. */
  readonly sinceMs?: number | undefined;
}

export interface StrictEvidence {
  readonly instances: readonly LedgerInstance[];
  readonly mesh: MeshSnapshot;
  /** Those that are there and have not ended. */
  readonly pods: readonly Workload[];
  /** Unix milliseconds. */
  readonly now: number;
}

/** A port that stays as it is when the namespace or the workload becomes STRICT. `connections`: unproven ones it has let in. */
export interface ExemptPort extends TlsSwitch {
  readonly port: number;
  readonly pods: readonly string[];
  readonly connections: number;
}

export interface StrictCheck {
  readonly verdict: 'safe' | 'would break' | 'not enough observed';
  readonly takenAs: StrictScope['takenAs'];
  readonly pods: readonly string[];
  readonly offenders: readonly Conversation[];
  readonly exempt: readonly ExemptPort[];
  readonly limits: readonly StrictLimit[];
}

/** Throws CONFIG_INVALID for a workload that is not there or may mean several. */
export function strictCheck(of: StrictEvidence, question: StrictQuestion): StrictCheck {
  const scope = strictScope({ pods: of.pods, registry: of.mesh.registry }, question);
  const served = servedBy(of, scope);
  const seenAfter = question.sinceMs === undefined ? Number.NEGATIVE_INFINITY : of.now - question.sinceMs;
  // What was cut later was let in first, and stands in an entry of its own.
  const unproven = served.flatMap((of) =>
    of.run.entries
      .filter((entry) => isUnproven(entry) && entry.outcome !== 'cut')
      .map((entry) => ({ of, server: of.server, entry, extra: {}, isRecent: entry.open > 0 || lastSeenIn(of.run, entry) >= seenAfter })),
  );
  const offenders = conversations(unproven.filter(({ of: by, entry, isRecent }) => isRecent && isReached(by, entry.port)));
  const gone = served.filter(({ isGone, run }) => isGone && run.heard >= seenAfter).map(({ run }) => run);
  const limits = limitsOf({ ...of, gone }, { pods: scope.pods, minObservedMs: question.minObservedMs });
  const limited = limits.some(({ limiting }) => limiting);
  return {
    verdict: offenders.length > 0 ? 'would break' : limited ? 'not enough observed' : 'safe',
    takenAs: scope.takenAs,
    pods: scope.pods.map(podOf),
    offenders,
    exempt: exemptPorts(of.mesh, scope.pods, unproven),
    limits,
  };
}

interface Served {
  readonly server: string;
  /** Of the pod, or of each that took a gone pod's place. */
  readonly policies: readonly (TrafficPolicy | undefined)[];
  readonly run: LedgerInstance;
  readonly isGone: boolean;
}

/** What the sidecars of the pods in scope have seen; and those of gone pods that they have taken the place of. */
function servedBy({ instances, mesh, pods: all }: StrictEvidence, { takenAs, pods }: StrictScope): Served[] {
  const inScope = new Set(pods);
  const answering = answeringIn(all);
  return instances.flatMap((run): Served[] => {
    const answer = answering(run);
    if (answer === undefined) return [];
    const { isGone } = answer;
    // One pod was asked for: others of its workload have been others.
    const meant = answer.pods.filter((pod) => inScope.has(pod) && (takenAs !== 'pod' || podOf(pod) === run.pod));
    if (meant.length === 0) return [];
    const policies = new Set(meant.map(({ uid }) => mesh.policies.get(uid)));
    return [{ server: isGone ? `${run.pod} (gone)` : run.pod, policies: [...policies], run, isGone }];
  });
}

/** A caller counts wherever it may end up. */
function isReached({ policies }: Served, port: number): boolean {
  return policies.some((policy) => reachOf(policy, port) === 'reached');
}

/** What becomes of a port: STRICT reaches it, its own switch keeps it as it is, or it is STRICT already. */
function reachOf(policy: TrafficPolicy | undefined, port: number): 'reached' | 'exempt' | 'strict' {
  const own = policy?.inboundPorts.get(port);
  if (own !== undefined) return own.mode === 'STRICT' ? 'strict' : 'exempt';
  return policy?.inbound.mode === 'STRICT' ? 'strict' : 'reached';
}

function exemptPorts(
  mesh: MeshSnapshot,
  pods: readonly Workload[],
  unproven: readonly { readonly server: string; readonly entry: LedgerEntry }[],
): ExemptPort[] {
  const found = new Map<string, ExemptPort>();
  for (const pod of pods) {
    for (const [port, { mode, source }] of mesh.policies.get(pod.uid)?.inboundPorts ?? []) {
      if (mode === 'STRICT') continue;
      const key = JSON.stringify([port, mode, source]);
      const connections = unproven
        .filter(({ server, entry }) => server === podOf(pod) && entry.port === port)
        .reduce((sum, { entry }) => sum + entry.connections, 0);
      const before = found.get(key) ?? { port, mode, source, pods: [], connections: 0 };
      found.set(key, { ...before, pods: [...before.pods, podOf(pod)], connections: before.connections + connections });
    }
  }
  return [...found.values()];
}
