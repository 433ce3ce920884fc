// Control alone on its machine, which keeps its state in files; or one of several of a cluster, of which a Lease says who leads, and which keep theirs in the API server.

import { join } from 'node:path';
import type { WatchableKubeApi } from '../kube/api.ts';
import { KeptText } from '../kube/kept-text.ts';
import { LeaderLease, type LeaseTimes } from '../kube/leader-lease.ts';
import { Reflector } from '../kube/reflector.ts';
import type { Log } from '../observe/log.ts';
import { fileState, type KeptState } from './kept-state.ts';

export interface Leadership {
  /** Who leads takes rollouts forward, writes statuses and keeps the ledger; every control resolves and serves. */
  readonly leads: () => boolean;
  readonly lease: LeaderLease | undefined;
  /** By name. Undefined where nothing outlives us. */
  kept(name: string): KeptState | undefined;
  /** How often it makes sense to save what changes all the time. */
  readonly saveEveryMs: number;
  /** Calls back when another control may have changed what is kept under the name. Until the signal aborts. */
  follow(name: string, changed: () => void, signal: AbortSignal): Promise<void>;
}

/** Where several controls share what they keep. */
export interface SharedState {
  readonly api: WatchableKubeApi;
  readonly namespace: string;
  /** Name of the Lease. */
  readonly lease: string;
  /** Of this process, like no other's. */
  readonly identity: string;
  readonly times?: LeaseTimes;
}

export function alone(stateDir: string | undefined): Leadership {
  return {
    leads: () => true,
    lease: undefined,
    kept: (name) => (stateDir === undefined ? undefined : fileState(join(stateDir, `${name}.json`))),
    saveEveryMs: 10_000,
    follow: () => Promise.resolve(),
  };
}

export function oneOfSeveral(shared: SharedState, { log, now }: { log: Log; now: () => number }): Leadership {
  const { api, namespace } = shared;
  const lease = new LeaderLease({ ...shared, name: shared.lease, log, now });
  return {
    leads: () => lease.leads,
    lease,
    kept: (name) => new KeptText({ api, namespace, name }),
    // Each control hears everything from the agents themselves: this is for the day on which all of them were away, and etcd keeps every version for minutes.
    saveEveryMs: 60_000,
    follow: async (name, changed, signal) => {
      const unsubscribe = lease.leading.subscribe(changed);
      const reflector = new Reflector<true>({
        api,
        paths: [`/apis/handfast.io/v1alpha1/namespaces/${namespace}/controlstates`],
        name,
        read: () => true,
        onChange: changed,
        log,
      });
      await reflector.run(signal);
      unsubscribe();
    },
  };
}
