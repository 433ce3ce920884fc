// Control: objects in, resources out. Whatever a new set of objects, or a step of a rollout, changes goes into the cache that discovery serves.

import { encodeAuthorization } from '../discovery/authorization-codec.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import { encodeService, encodeTrafficPolicy, encodeWorkload } from '../discovery/workload-codec.ts';
import type { Log } from '../observe/log.ts';
import type { Authorization } from '../policy/authorization.ts';
import type { FetchedKeys } from '../policy/jwt-rules.ts';
import { podUid, type TrafficPolicy, type Workload } from '../policy/model.ts';
import { Snapshot } from '../snapshot.ts';
import { ExpectedPolicies } from './expected-policies.ts';
import type { EffectiveObjects } from './objects/mesh-objects.ts';
import { isCalledInPlaintext, plaintextHosts, ToldInPlaintext } from './plaintext-clients.ts';
import { type Changed, MeshResolver, type ResolvedChange } from './resolve/mesh-resolver.ts';
import { StagedSwitches, type StageTimes, stageTimes } from './staged-switches.ts';

export interface ControllerOptions {
  /** What is to be resolved. */
  readonly effective: Snapshot<EffectiveObjects>;
  /** Of the issuers that RequestAuthentications name. */
  readonly keys?: Snapshot<FetchedKeys>;
  readonly cache: ResourceCache;
  readonly trustDomain: string;
  /** How long each stage of a switch that clients must follow lasts. */
  readonly stages?: StageTimes;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export interface RunningController {
  /** Whether a pod's (`namespace/name`) switches are as its objects say, and not on their way there. */
  isInForce(pod: string): boolean;
  /** What a pod's sidecar should hold by now (discovery/own-policies.ts); undefined for a pod that nothing is known of. */
  expectedDigest(pod: string): string | undefined;
}

export function startController({
  effective,
  keys = new Snapshot<FetchedKeys>(),
  cache,
  trustDomain,
  stages,
  log,
  signal,
}: ControllerOptions): RunningController {
  const resolver = new MeshResolver({ trustDomain });
  const staged = new StagedSwitches(stages);
  const expected = new ExpectedPolicies(cache);
  const workloads = new Map<string, Workload>();
  const told = new ToldInPlaintext((stages ?? stageTimes).followedMs);
  let timer: NodeJS.Timeout | undefined;

  const wait = () => {
    clearTimeout(timer);
    if (staged.nextAt !== undefined && !signal.aborted) timer = setTimeout(next, Math.max(0, staged.nextAt - performance.now())).unref();
  };
  const next = () => {
    const policies = new Map(staged.advance(performance.now()).map((policy) => [policy.workload, policy]));
    cache.apply(typeUrls.trafficPolicy, { upserts: encoded(policies, encodeTrafficPolicy), removed: [] });
    if (policies.size > 0) log.info({ workloads: policies.size }, 'switches turned one stage further');
    wait();
  };
  const resolve = () => {
    if (effective.current === undefined) return;
    const { objects, selections } = effective.current;
    const change = resolver.replace(objects, selections, keys.current);
    for (const uid of change.workloads.removed) workloads.delete(uid);
    for (const [uid, workload] of change.workloads.upserts) workloads.set(uid, workload);
    const hosts = told.at(plaintextHosts(objects), performance.now());
    for (const uid of change.policies.removed) staged.forget(uid);
    const turned = [...change.policies.upserts].map(([uid, policy]): [string, TrafficPolicy] => [
      uid,
      staged.turn(policy, { plaintextClients: isCalledInPlaintext(workloads.get(uid), hosts), now: performance.now() }),
    ]);
    publish(cache, { ...change, policies: { upserts: new Map(turned), removed: change.policies.removed } });
    expected.apply(change);
    const inStages = turned.filter(([, { announced }]) => announced !== undefined).length;
    log.info({ ...countsOf(change), ...(inStages === 0 ? {} : { inStages }) }, 'mesh resolved');
    wait();
  };
  resolve();
  for (const end of [effective.subscribe(resolve), keys.subscribe(resolve), () => clearTimeout(timer)])
    signal.addEventListener('abort', end, { once: true });
  return { isInForce: (pod) => !staged.isOnItsWay(podUid(pod)), expectedDigest: (pod) => expected.digestFor(pod) };
}

/** In an order in which nobody is without an authorization on the way: what widens goes before the workloads that name it or no longer do, what narrows after; and no workload without its policy. */
function publish(cache: ResourceCache, { workloads, services, policies, authorizations }: ResolvedChange): void {
  const known = cache.resources(typeUrls.authorization);
  const goesFirst = (policy: Authorization, key: string) => policy.scope !== 'WORKLOAD_SELECTOR' || known?.has(key) !== true;
  const [first, last] = split(authorizations.upserts, goesFirst);
  const apply = <T>(typeUrl: string, { upserts, removed }: Changed<T>, encode: (value: T) => Uint8Array) => {
    if (upserts.size > 0 || removed.length > 0 || cache.resources(typeUrl) === undefined)
      cache.apply(typeUrl, { upserts: encoded(upserts, encode), removed });
  };
  apply(typeUrls.authorization, { upserts: first, removed: [] }, encodeAuthorization);
  apply(typeUrls.trafficPolicy, { upserts: policies.upserts, removed: [] }, encodeTrafficPolicy);
  const addresses = new Map([...encoded(workloads.upserts, encodeWorkload), ...encoded(services.upserts, encodeService)]);
  apply(typeUrls.address, { upserts: addresses, removed: [...workloads.removed, ...services.removed] }, (bytes) => bytes);
  apply(typeUrls.trafficPolicy, { upserts: new Map(), removed: policies.removed }, encodeTrafficPolicy);
  apply(typeUrls.authorization, { upserts: last, removed: authorizations.removed }, encodeAuthorization);
}

function encoded<T>(values: ReadonlyMap<string, T>, encode: (value: T) => Uint8Array): Map<string, Uint8Array> {
  return new Map([...values].map(([key, value]) => [key, encode(value)]));
}

function split<T>(all: ReadonlyMap<string, T>, isFirst: (value: T, key: string) => boolean): [Map<string, T>, Map<string, T>] {
  const halves: [Map<string, T>, Map<string, T>] = [new Map(), new Map()];
  for (const [key, value] of all) halves[isFirst(value, key) ? 0 : 1].set(key, value);
  return halves;
}

function countsOf(change: ResolvedChange): Record<string, { changed: number; removed: number }> {
  const count = ({ upserts, removed }: Changed<unknown>) => ({ changed: upserts.size, removed: removed.length });
  return {
    workloads: count(change.workloads),
    services: count(change.services),
    policies: count(change.policies),
    authorizations: count(change.authorizations),
  };
}
