// Control, agents and sidecars without sockets between them: what is under way is moved on when a test says, in whatever order.

import { EventEmitter } from 'node:events';
import { addressName } from '../../src/discovery/address-name.ts';
import { decodeAuthorization, encodeAuthorization } from '../../src/discovery/authorization-codec.ts';
import type { ChangingNames } from '../../src/discovery/delta-client.ts';
import { type DeltaStream, serveDeltaStream } from '../../src/discovery/delta-server.ts';
import { MeshIndex } from '../../src/discovery/mesh-index.ts';
import { meshTypeUrls } from '../../src/discovery/mesh-source.ts';
import { ResourceCache } from '../../src/discovery/resource-cache.ts';
import type { ResourceView } from '../../src/discovery/resource-view.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { decodeAddress, encodeTrafficPolicy, encodeWorkload } from '../../src/discovery/workload-codec.ts';
import type { Authorization } from '../../src/policy/authorization.ts';
import type { TrafficPolicy } from '../../src/policy/model.ts';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';

const quiet = { info: () => undefined, warn: () => undefined };

/** mulberry32: small, and the same everywhere. */
export function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

interface Written {
  readonly response: DeltaDiscoveryResponse;
  readonly whenLeft: () => void;
}

/** A client of a cache, without a socket between them: what is under way waits to be moved on. */
export class Hop {
  readonly cache = new ResourceCache();
  readonly index = new MeshIndex(this.cache);
  /** The policies that have been in force for `web` here. */
  readonly bound = new Set<string>();
  /** What it asks for by name; of others everything. */
  readonly #names: ReadonlyMap<string, ChangingNames | readonly string[]>;
  /** Hears what of the addresses that it asks for is answered, and what it lets go of. */
  readonly #heard: (change: { answered?: readonly string[]; forgotten?: readonly string[] }) => void;
  readonly #from: () => ResourceView;
  readonly #held = new Map<string, Map<string, string>>(meshTypeUrls.map((typeUrl) => [typeUrl, new Map()]));
  #call = new EventEmitter();
  /** What the server has written and the client not read, and the other way round. */
  #down: Written[] = [];
  #up: Partial<DeltaDiscoveryRequest>[] = [];

  constructor(
    from: () => ResourceView,
    names: ReadonlyMap<string, ChangingNames | readonly string[]> = new Map(),
    heard: (change: { answered?: readonly string[]; forgotten?: readonly string[] }) => void = () => undefined,
  ) {
    this.#from = from;
    this.#names = names;
    this.#heard = heard;
    this.connect();
  }

  /** `isTooMuch`: the server has ended the stream before, because too much was asked for. */
  connect({ isTooMuch = false } = {}): void {
    this.#call.emit('cancelled');
    const down: Written[] = [];
    this.#down = down;
    this.#call = Object.assign(new EventEmitter(), {
      write: (response: DeltaDiscoveryResponse, whenLeft: () => void) => down.push({ response, whenLeft }),
      end: () => undefined,
    });
    // The part of a gRPC stream that the server touches; the rest of one is not made for thousands of steps.
    serveDeltaStream(this.#call as unknown as DeltaStream, { view: this.#from(), peer: 'test', log: quiet });
    const forgotten = this.#changing?.closed(isTooMuch) ?? [];
    if (forgotten.length > 0) this.#heard({ forgotten: forgotten.map(addressName) });
    const up: Partial<DeltaDiscoveryRequest>[] = [];
    this.#up = up;
    for (const [typeUrl, held] of this.#held) {
      const names = this.#names.get(typeUrl) ?? [];
      const say = ({ added, dropped }: { added: readonly string[]; dropped: readonly string[] }) => {
        this.#heard({ forgotten: dropped });
        up.push({ typeUrl, resourceNamesSubscribe: [...added], resourceNamesUnsubscribe: [...dropped] });
      };
      const resourceNamesSubscribe = [...('opened' in names ? names.opened(say) : names)];
      up.push({ typeUrl, resourceNamesSubscribe, initialResourceVersions: Object.fromEntries(held) });
    }
  }

  get #changing(): ChangingNames | undefined {
    const names = this.#names.get(typeUrls.address) ?? [];
    return 'opened' in names ? names : undefined;
  }

  /** False where there was nothing to move. */
  moveUp(): boolean {
    const request = this.#up.shift();
    if (request === undefined) return false;
    const nothing = { node: undefined, resourceNamesSubscribe: [], resourceNamesUnsubscribe: [], initialResourceVersions: {} };
    this.#call.emit('data', { ...nothing, responseNonce: '', errorDetail: undefined, ...request });
    return true;
  }

  moveDown({ refuse }: { refuse: boolean }): boolean {
    const next = this.#down.shift();
    if (next === undefined) return false;
    next.whenLeft();
    const { typeUrl, nonce, resources, removedResources } = next.response;
    this.#up.push({ typeUrl, responseNonce: nonce, ...(refuse ? { errorDetail: { code: 3, message: 'no', details: [] } } : {}) });
    if (refuse) return true;
    const changing = typeUrl === typeUrls.address ? this.#changing : undefined;
    const answered = changing?.answeredBy(next.response);
    changing?.taken(next.response);
    const held = this.#held.get(typeUrl);
    for (const name of removedResources) held?.delete(name);
    for (const { name, version } of resources) held?.set(name, version);
    const upserts = new Map(resources.map(({ name, resource }) => [name, resource?.value ?? Buffer.alloc(0)]));
    this.index.apply(typeUrl, { upserts, removed: removedResources });
    if (answered !== undefined) this.#heard({ answered });
    return true;
  }

  end(): void {
    this.#call.emit('cancelled');
  }
}

/** Policies of which these hold for `web` all the time: for its whole namespace, or because it names them. */
const ALWAYS = ['p', 'q'];

export class World {
  readonly cache = new ResourceCache();
  readonly #next: (below: number) => number;
  readonly #policies = new Map<string, Authorization>();
  readonly #named = new Map<string, readonly string[]>([['web', []]]);
  #round = 0;

  constructor(next: (below: number) => number) {
    this.#next = next;
    this.publish();
  }

  /** Some policies change their scope, their rules or are gone, and so do some pods; in control's order. */
  publish(): void {
    const next = this.#next;
    this.#round++;
    const before = new Map(this.#policies);
    const bindings = new Map([...this.#named.keys()].map((pod) => [pod, new Set(this.#named.get(pod))]));
    for (const name of [...ALWAYS, 'r', 's', 't']) {
      if (before.has(name) && next(3) > 0) continue;
      const byName = next(2) === 0;
      for (const named of bindings.values()) named.delete(name);
      if (!ALWAYS.includes(name) && next(3) === 0) this.#policies.delete(name);
      else {
        const port = next(4) === 0 ? [] : [[[{ ...blank, destinationPorts: [this.#round] }]]];
        const scope = byName ? 'WORKLOAD_SELECTOR' : 'NAMESPACE';
        this.#policies.set(name, { name, namespace: 'foo', scope, action: 'DENY', dryRun: false, rules: port });
        if (byName) for (const [pod, named] of bindings) if (pod === 'web' || next(2) === 0) named.add(name);
      }
    }
    const pod = `pod-${next(4)}`;
    if (next(2) === 0) bindings.delete(pod);
    else if (!bindings.has(pod)) bindings.set(pod, new Set());
    const gonePods = [...this.#named.keys()].filter((name) => !bindings.has(name));
    this.#named.clear();
    for (const [name, named] of bindings) this.#named.set(name, [...named]);
    const changed = [...this.#policies].filter(([name, policy]) => before.get(name) !== policy);
    const goesFirst = ([name, { scope }]: [string, Authorization]) => scope !== 'WORKLOAD_SELECTOR' || !before.has(name);
    const apply = (policies: [string, Authorization][], removed: readonly string[]) =>
      this.cache.apply(typeUrls.authorization, {
        upserts: new Map(policies.map(([name, policy]) => [`foo/${name}`, encodeAuthorization(policy)])),
        removed: removed.map((name) => `foo/${name}`),
      });
    apply(changed.filter(goesFirst), []);
    const policies = [...this.#named.keys()].map((name) => [uidOf(name), encodeTrafficPolicy(trafficPolicy(uidOf(name)))] as const);
    this.cache.apply(typeUrls.trafficPolicy, { upserts: new Map(policies), removed: [] });
    this.cache.apply(typeUrls.address, {
      upserts: new Map([...this.#named].map(([name, named]) => [uidOf(name), encodeWorkload(workload(name, named))])),
      removed: gonePods.map(uidOf),
    });
    this.cache.apply(typeUrls.trafficPolicy, { upserts: new Map(), removed: gonePods.map(uidOf) });
    apply(
      changed.filter((each) => !goesFirst(each)),
      [...before.keys()].filter((name) => !this.#policies.has(name)),
    );
  }
}

const blank = {
  ...{ namespaces: [], notNamespaces: [], serviceAccounts: [], notServiceAccounts: [], principals: [], notPrincipals: [] },
  ...{ sourceIps: [], notSourceIps: [], destinationIps: [], notDestinationIps: [], destinationPorts: [], notDestinationPorts: [] },
};
export const uidOf = (pod: string) => `local//Pod/foo/${pod}`;

function trafficPolicy(uid: string): TrafficPolicy {
  const inbound = { mode: 'STRICT', source: 'the test' } as const;
  const rest = { announced: undefined, shadow: undefined, clientTls: [], rootClientTls: [], trustDomainAliases: [] };
  return { workload: uid, inbound, inboundPorts: new Map(), outbound: 'ALLOW_ANY', ...rest };
}

export const addressOfPod = (pod: string) => (pod === 'web' ? '10.0.0.9' : `10.0.0.${pod.slice(-1)}`);

function workload(name: string, named: readonly string[]) {
  const authorizationPolicies = named.map((policy) => `foo/${policy}`);
  const rest = { identity: undefined, addresses: [addressOfPod(name)], meshed: true, hbone: false, healthy: true, services: new Map() };
  return { uid: uidOf(name), name, namespace: 'foo', ...rest, authorizationPolicies };
}

/**
 * Of the policies that hold for `web` always, those that would let somebody in: neither for all, nor named by it. One that it names and that is not there denies. A client that has refused
 * every policy from the start is without them until it takes one for the first time.
 */
export function unbound({ cache, bound }: Hop): readonly string[] {
  const [policies, addresses] = [cache.resources(typeUrls.authorization), cache.resources(typeUrls.address)];
  const web = addresses?.get(uidOf('web'));
  // Nothing is published before every type has arrived.
  if (policies === undefined || web === undefined) return [];
  const decoded = decodeAddress(web.value);
  const named = decoded.kind === 'workload' ? decoded.value.authorizationPolicies : [];
  return ALWAYS.map((name) => `foo/${name}`).filter((name) => {
    const policy = policies.get(name);
    const isBound = named.includes(name) || (policy !== undefined && decodeAuthorization(policy.value, name).scope !== 'WORKLOAD_SELECTOR');
    if (isBound) bound.add(name);
    return !isBound && bound.has(name);
  });
}

export const contents = (cache: ResourceCache) =>
  meshTypeUrls.map((typeUrl) => [...(cache.resources(typeUrl) ?? [])].map(([name, { version }]) => `${name} ${version}`).sort());
