// Sidecars of the harness that ask an agent's discovery for what they need, over a real socket; what the agent holds is a test's to publish.

import { AddressView } from '../../src/discovery/address-view.ts';
import { encodeAuthorization } from '../../src/discovery/authorization-codec.ts';
import { runDeltaAdsClient } from '../../src/discovery/delta-ads-client.ts';
import { type InterestLimits, Interests } from '../../src/discovery/interests.ts';
import { MeshIndex } from '../../src/discovery/mesh-index.ts';
import { MeshSource } from '../../src/discovery/mesh-source.ts';
import { type NameBounds, NameBudget } from '../../src/discovery/name-budget.ts';
import { ResourceCache } from '../../src/discovery/resource-cache.ts';
import { sidecarSubscriptions } from '../../src/discovery/sidecar-subscriptions.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { encodeService, encodeTrafficPolicy, encodeWorkload } from '../../src/discovery/workload-codec.ts';
import { authorizationKey } from '../../src/policy/authorization.ts';
import type { TrafficPolicy } from '../../src/policy/model.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { cleanups, serve } from './ads-rig.ts';
import { type MeshSpec, meshOf, type RunningSidecar, type SidecarSetup, startSidecar, uidOf } from './sidecar-harness.ts';

/** The agent's side: what control would have sent it, and the socket. It can be stopped and started again at the same path, with or without what it knew. */
export class DiscoveryRig {
  readonly #path: string | undefined;
  #index = new MeshIndex(new ResourceCache());
  #server: Awaited<ReturnType<typeof serve>> | undefined;
  #budget: NameBudget;

  private constructor({ path, names }: { path?: string; names?: NameBounds } = {}) {
    this.#path = path;
    this.#budget = new NameBudget(names);
  }

  static async start(spec?: MeshSpec): Promise<DiscoveryRig> {
    const rig = new DiscoveryRig();
    await rig.#listen();
    if (spec !== undefined) rig.publish(spec);
    return rig;
  }

  get server(): Awaited<ReturnType<typeof serve>> {
    if (this.#server === undefined) throw new Error('it does not run');
    return this.#server;
  }

  /** The addresses that were asked for, in order, as often as they were. */
  get asked(): readonly string[] {
    return this.server.requests.all
      .filter(({ typeUrl }) => typeUrl === typeUrls.address)
      .flatMap(({ resourceNamesSubscribe }) => resourceNamesSubscribe.filter((name) => name.startsWith('/')).map((name) => name.slice(1)));
  }

  stop(): Promise<void> {
    return this.server.stop();
  }

  /** Another agent takes the place of one that was stopped: it knows what is published from now on. */
  async restart(spec?: MeshSpec, names?: NameBounds): Promise<void> {
    this.#budget = new NameBudget(names);
    this.#index = new MeshIndex(new ResourceCache());
    await this.#listen(this.server.path);
    if (spec !== undefined) this.publish(spec);
  }

  /** The whole mesh from now on, in control's order. */
  publish(spec: MeshSpec): void {
    const { registry, policies } = meshOf(spec);
    const workloads = [...registry.workloads()];
    const services = (spec.services ?? []).flatMap(({ namespace, name }) => registry.service(`${namespace}/${name}`) ?? []);
    this.#replace(
      typeUrls.trafficPolicy,
      [...(policies as ReadonlyMap<string, TrafficPolicy>)].map(([uid, of]) => [uid, encodeTrafficPolicy(of)]),
    );
    this.#replace(typeUrls.address, [
      ...workloads.map((workload) => [workload.uid, encodeWorkload(workload)] as const),
      ...services.map((service) => [service.key, encodeService(service)] as const),
    ]);
    this.#replace(
      typeUrls.authorization,
      (spec.authorizations ?? []).map((policy) => [authorizationKey(policy), encodeAuthorization(policy)]),
    );
  }

  async #listen(path = this.#path): Promise<void> {
    const index = this.#index;
    this.#server = await serve(path, index.cache, { viewOf: () => new AddressView(index, this.#budget.open('foo')) });
  }

  #replace(typeUrl: string, all: readonly (readonly [string, Uint8Array])[]): void {
    const upserts = new Map(all);
    const removed = [...(this.#index.cache.resources(typeUrl)?.keys() ?? [])].filter((name) => !upserts.has(name));
    this.#index.apply(typeUrl, { upserts, removed });
  }
}

export interface AskingSidecar extends RunningSidecar {
  readonly interests: Interests;
}

/** Resolves when the sidecar has its own policy. */
export async function startAsking(rig: DiscoveryRig, setup: SidecarSetup & { limits?: Partial<InterestLimits> }): Promise<AskingSidecar> {
  const stop = new AbortController();
  const quiet = { info: () => undefined, warn: () => undefined };
  const self = uidOf(`${setup.namespace}/${setup.name}`);
  const interests = new Interests({
    self,
    log: quiet,
    signal: stop.signal,
    ...(setup.limits === undefined ? {} : { limits: setup.limits }),
  });
  const sidecar = await startSidecar({ ...setup, interests });
  const source = new MeshSource(sidecar.mesh);
  const running = runDeltaAdsClient({
    ...sidecarSubscriptions(self, interests),
    target: unixTarget(rig.server.address),
    nodeId: setup.name,
    token: undefined,
    apply: (typeUrl, change) => source.apply(typeUrl, change),
    log: sidecar.records.log,
    signal: stop.signal,
  });
  cleanups.push(async () => {
    stop.abort();
    await running;
    await sidecar[Symbol.asyncDispose]();
  });
  await sidecar.records.find(({ msg }) => msg === 'policy in force');
  return Object.assign(sidecar, { interests });
}
