// `npm run bench -- policy`: a mesh of many workloads and policies, from objects to decisions: what resolving it costs, what one change costs, and what a
// decision costs in a small mesh and in this one. One process, the real parts: resolver, discovery cache, the sidecar's side of it, the decisions.

import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { pino } from 'pino';
import { startController } from '../src/control/controller.ts';
import type { EffectiveObjects, MeshObjects } from '../src/control/objects/mesh-objects.ts';
import { parseObjects } from '../src/control/objects/parse-objects.ts';
import { MeshResolver } from '../src/control/resolve/mesh-resolver.ts';
import { MeshSource, meshTypeUrls } from '../src/discovery/mesh-source.ts';
import { ResourceCache } from '../src/discovery/resource-cache.ts';
import { type Arrival, decideArrival, decideOutbound } from '../src/policy/decide.ts';
import type { Pod } from '../src/policy/kinds/pod.ts';
import type { MeshSnapshot } from '../src/policy/mesh-snapshot.ts';
import { allowedIdentities, decideSecureNaming } from '../src/policy/secure-naming.ts';
import { Snapshot } from '../src/snapshot.ts';
import { describeMachine } from './machine.ts';

const HELP = `usage: npm run bench -- policy [--workloads 100000] [--policies 10000] [--json FILE]

From objects to decisions: the time to resolve a mesh, the time from one changed object to the sidecar's snapshot, and the cost of a decision with 10 workloads and
with this many.
`;

const POLICIES_PER_NAMESPACE = 10;
const PODS_PER_SERVICE = 10;
/** As many as a workload calls: the cost of a look-up is asked, not that of memory nobody has touched for long. */
const DESTINATIONS = 10;
const CHANGES = 25;
const DECISIONS = 200_000;
const ROUNDS = 7;

export async function benchPolicy(argv: readonly string[]): Promise<void> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      workloads: { type: 'string', default: '100000' },
      policies: { type: 'string', default: '10000' },
      json: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  const size = { workloads: Number(values.workloads), policies: Number(values.policies) };
  if (
    values.help ||
    !Object.values(size).every((count) => Number.isInteger(count) && count >= POLICIES_PER_NAMESPACE && count <= 1_000_000)
  ) {
    process.stdout.write(HELP);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  const say = (line: string) => process.stdout.write(`${line}\n`);
  const { cpu, cores, node } = describeMachine();
  say(`${cpu}, ${cores} cores; Node.js ${node}`);
  const small = new Mesh({ workloads: 10, policies: POLICIES_PER_NAMESPACE });
  await small.resolve();
  const large = new Mesh(size);
  const resolveMs = large.resolveAlone();
  const arriveMs = await large.resolve();
  say(
    `${size.workloads} workloads, ${size.policies} policies: resolved in ${resolveMs.toFixed(0)} ms; resolved, encoded, hashed, decoded and indexed by a sidecar in ${arriveMs.toFixed(0)} ms`,
  );
  const before = rssMb();
  const updates: number[] = [];
  for (let change = 0; change < CHANGES; change++) updates.push(await large.changeOne(change));
  const updateMs = median(updates);
  say(
    `one changed policy, to the sidecar's snapshot: ${updateMs.toFixed(1)} ms (median of ${CHANGES}, longest ${Math.max(...updates).toFixed(1)} ms); memory ${before} MB before, ${rssMb()} MB after ${CHANGES} changes`,
  );
  // In turn, so that the machine's moods fall on both.
  const costs: { small: number[]; large: number[] } = { small: [], large: [] };
  for (let round = 0; round < ROUNDS; round++) {
    costs.small.push(small.decide());
    costs.large.push(large.decide());
  }
  const decisionNs = { '10': Math.round(median(costs.small)), [String(size.workloads)]: Math.round(median(costs.large)) };
  say(
    `a connection's decisions on both sides, with 10 workloads: ${decisionNs['10']} ns; with ${size.workloads}: ${decisionNs[String(size.workloads)]} ns; ratio ${(median(costs.large) / median(costs.small)).toFixed(2)}; ${Math.round(1e9 / median(costs.large))} a second`,
  );
  const result = { resolveMs: Math.round(resolveMs), updateMs: Math.round(updateMs * 10) / 10, rssMb: rssMb(), decisionNs };
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify(result)}\n`);
}

/** Control and one sidecar, with nothing but function calls between them. */
class Mesh {
  readonly #source = new Snapshot<EffectiveObjects>();
  readonly #mesh = new Snapshot<MeshSnapshot>();
  #objects: MeshObjects;

  constructor({ workloads, policies }: { workloads: number; policies: number }) {
    const namespaces = Math.max(1, Math.round(policies / POLICIES_PER_NAMESPACE));
    this.#objects = objectsOf(namespaces, Math.ceil(workloads / namespaces));
  }

  /** Milliseconds of control's resolver, from parsed objects and from nothing. */
  resolveAlone(): number {
    const began = performance.now();
    new MeshResolver({ trustDomain: 'cluster.local' }).replace(this.#objects, new Map());
    return performance.now() - began;
  }

  /** Milliseconds from parsed objects to a sidecar's snapshot. */
  async resolve(): Promise<number> {
    const began = performance.now();
    this.#source.replace({ objects: this.#objects, selections: new Map() });
    const cache = new ResourceCache();
    const sidecar = new MeshSource(this.#mesh);
    const pass = (typeUrl: string, names: readonly string[]) => {
      const resources = cache.resources(typeUrl);
      const upserts = new Map<string, Uint8Array>();
      const removed: string[] = [];
      for (const name of names) {
        const resource = resources?.get(name);
        if (resource === undefined) removed.push(name);
        else upserts.set(name, resource.value);
      }
      sidecar.apply(typeUrl, { upserts, removed });
    };
    cache.subscribe(pass);
    startController({
      effective: this.#source,
      cache,
      trustDomain: 'cluster.local',
      log: pino({ enabled: false }),
      signal: new AbortController().signal,
    });
    for (const typeUrl of meshTypeUrls)
      if (cache.resources(typeUrl)?.size === 0) sidecar.apply(typeUrl, { upserts: new Map(), removed: [] });
    await this.#mesh.first(AbortSignal.timeout(600_000));
    return performance.now() - began;
  }

  /** Milliseconds from an edited PeerAuthentication, which is a whole namespace's, to the snapshot that has it. */
  async changeOne(index: number): Promise<number> {
    const changed = this.#objects.peerAuthentications.filter(({ name }) => name === 'default')[index];
    const peerAuthentications = this.#objects.peerAuthentications.map((object) =>
      object === changed ? { ...object, mode: object.mode === 'STRICT' ? ('PERMISSIVE' as const) : ('STRICT' as const) } : object,
    );
    this.#objects = { ...this.#objects, peerAuthentications };
    const next = new Promise<void>((resolve) => {
      const unsubscribe = this.#mesh.subscribe(() => {
        unsubscribe();
        resolve();
      });
    });
    const began = performance.now();
    this.#source.replace({ objects: this.#objects, selections: new Map() });
    await next;
    return performance.now() - began;
  }

  /** The first services of namespaces all over the mesh. */
  #destinations(): string[] {
    const first = this.#objects.services.filter(({ metadata }) => metadata.name === 'svc-0').map((service) => service.spec.clusterIP ?? '');
    return Array.from({ length: DESTINATIONS }, (_, index) => first[Math.floor((index * first.length) / DESTINATIONS)] ?? '');
  }

  /** Nanoseconds for all that is decided about a connection: the client's side and the server's. */
  decide(): number {
    const mesh = this.#mesh.current;
    if (mesh === undefined) throw new Error('not resolved');
    const destinations = this.#destinations();
    let allowed = 0;
    const began = performance.now();
    for (let index = 0; index < DECISIONS; index++) allowed += connection(mesh, destinations[index % DESTINATIONS] ?? '') ? 1 : 0;
    const took = performance.now() - began;
    if (allowed !== DECISIONS) throw new Error(`${DECISIONS - allowed} of ${DECISIONS} connections were refused: the bench is wrong`);
    return (took / DECISIONS) * 1e6;
  }
}

/** As a pair of sidecars decides: whom a service's address means, how to dial it, whether it is who it must be; and whether the caller may come in. */
function connection(mesh: MeshSnapshot, address: string): boolean {
  const resolution = mesh.registry.resolve({ address, port: 80 });
  if (resolution.kind !== 'service') return false;
  const endpoint = resolution.endpoints[0];
  const client = endpoint === undefined ? undefined : mesh.policies.get(endpoint.workload.uid);
  if (endpoint === undefined || client === undefined || endpoint.workload.identity === undefined) return false;
  const server = mesh.policies.get(endpoint.workload.uid);
  const { tls } = decideOutbound({ ...endpoint, client, server });
  const naming = decideSecureNaming(allowedIdentities(endpoint, { tls, client }), endpoint.workload.identity, 'it');
  if (!naming.allowed || server === undefined) return false;
  const arrival: Arrival = { transport: 'mtls', peer: endpoint.workload.identity, sourceIp: endpoint.address, destination: endpoint };
  return decideArrival(arrival, { switches: server, authorizations: mesh.authorizations.of(endpoint.workload) }).allowed;
}

/** Services stand at 10.96.0.0/11, pods at 11.0.0.0/8. */
function serviceAddress(index: number): string {
  return `10.${96 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}`;
}

function podAddress(index: number): string {
  return `11.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
}

/** Policies are parsed as files are; of pods there are too many, so each is made like one that was. */
function objectsOf(namespaces: number, podsEach: number): MeshObjects {
  const services = Math.max(1, Math.floor(podsEach / PODS_PER_SERVICE));
  const parsed = parseObjects(
    Array.from({ length: namespaces }, (_, index) => ({ name: `n${index}.yaml`, text: policiesOf(index, services) })),
  );
  const [template] = parseObjects([{ name: 'pod.yaml', text: POD }]).pods;
  if (template === undefined) throw new Error('no pod');
  const pods = Array.from({ length: namespaces * podsEach }, (_, index) => podLike(template, index, podsEach));
  return { ...parsed, pods };
}

const POD = `apiVersion: v1
kind: Pod
metadata: {name: pod, namespace: foo, labels: {app: a, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: sa}
status: {podIP: 11.0.0.0}
`;

function podLike(template: Pod, index: number, podsEach: number): Pod {
  const address = podAddress(index);
  const app = `app-${index % Math.max(1, Math.floor(podsEach / PODS_PER_SERVICE))}`;
  return {
    ...template,
    metadata: {
      ...template.metadata,
      name: `pod-${index}`,
      namespace: `n${Math.floor(index / podsEach)}`,
      labels: { ...template.metadata.labels, app },
    },
    spec: { ...template.spec, serviceAccountName: app },
    status: { ...template.status, podIP: address },
  };
}

/** Ten policies: the namespace's and three workloads' PeerAuthentications, three AuthorizationPolicies, two DestinationRules, one ScopeConfig; and the services. */
function policiesOf(namespace: number, services: number): string {
  const meta = (name: string) => `metadata: {name: ${name}, namespace: n${namespace}}`;
  // All for the first service, which is the one that is called: it has the same policies in a small mesh and in a large one.
  const selector = 'selector: {matchLabels: {app: app-0}}';
  const own = `cluster.local/ns/n${namespace}`;
  return [
    `apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n${meta('default')}\nspec: {mtls: {mode: STRICT}}\n`,
    ...[0, 1, 2].map(
      (index) =>
        `apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n${meta(`ports-${index}`)}\nspec: {${selector}, mtls: {mode: STRICT}, portLevelMtls: {"${9000 + index}": {mode: PERMISSIVE}}}\n`,
    ),
    `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n${meta('own')}\nspec: {rules: [{from: [{source: {principals: ["${own}/*"]}}]}]}\n`,
    `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n${meta('guest')}\nspec: {${selector}, rules: [{from: [{source: {namespaces: [guest, other]}}], to: [{operation: {ports: ["80"]}}]}]}\n`,
    `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n${meta('never')}\nspec: {action: DENY, ${selector}, rules: [{from: [{source: {ipBlocks: ["192.168.0.0/16", "fd00::/8"]}}]}]}\n`,
    `apiVersion: networking.istio.io/v1\nkind: DestinationRule\n${meta('all')}\nspec: {host: "*.n${namespace}.svc.cluster.local", trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}\n`,
    `apiVersion: networking.istio.io/v1\nkind: DestinationRule\n${meta('one')}\nspec: {host: svc-0, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}\n`,
    `apiVersion: handfast.io/v1alpha1\nkind: ScopeConfig\n${meta('canary')}\nspec: {selector: {matchLabels: {app: app-0}}, object: {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: canary}, spec: {mtls: {mode: STRICT}}}}\n`,
    ...Array.from({ length: services }, (_, index) => {
      const address = serviceAddress(namespace * services + index);
      return `apiVersion: v1\nkind: Service\n${meta(`svc-${index}`)}\nspec: {clusterIP: ${address}, selector: {app: app-${index}}, ports: [{port: 80, targetPort: 8080}]}\n`;
    }),
  ].join('---\n');
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
}

function rssMb(): number {
  return Math.round(process.memoryUsage.rss() / 1_048_576);
}
