// Who answers for what a run has seen: its own pod, or those that have taken the place of a pod that is gone, whose callers will call the new ones.

import type { Workload } from '../../policy/model.ts';
import type { LedgerInstance } from './ledger-instance.ts';

export interface Answering {
  /** None where nobody has succeeded. */
  readonly pods: readonly Workload[];
  /** The pod that was seen then is not there any more, or is another by the same name. */
  readonly isGone: boolean;
}

type Run = Pick<LedgerInstance, 'pod' | 'reporter' | 'wasBelieved'>;

/** Of a run among the pods that are there; undefined for one whose word nobody can trust. */
export function answeringIn(there: Iterable<Workload>): (run: Run) => Answering | undefined {
  const all = [...there];
  const byPod = new Map(all.map((pod) => [podOf(pod), pod]));
  const byIdentity = Map.groupBy(all, ({ namespace, identity }) => `${namespace} ${identity?.uri ?? ''}`);
  return ({ pod, reporter, wasBelieved }) => {
    const present = byPod.get(pod);
    if (present?.identity?.uri === reporter) return { pods: [present], isGone: false };
    // Nobody can be asked any more whether it was that pod's own sidecar: what was known then counts.
    if (!wasBelieved) return undefined;
    const [namespace] = pod.split('/');
    // Under another service account it is another pod, and whoever called the old one by its name calls it.
    return { pods: [...(byIdentity.get(`${namespace} ${reporter}`) ?? []), ...(present === undefined ? [] : [present])], isGone: true };
  };
}

export function podOf({ namespace, name }: Pick<Workload, 'namespace' | 'name'>): string {
  return `${namespace}/${name}`;
}
