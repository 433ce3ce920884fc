// What a stream sees of the mesh, beside what it should see by going through all of it; and that it hears of every difference, and of no more than it has to.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { AddressView } from '../../src/discovery/address-view.ts';
import { encodeAuthorization } from '../../src/discovery/authorization-codec.ts';
import { MeshIndex } from '../../src/discovery/mesh-index.ts';
import { NameBudget } from '../../src/discovery/name-budget.ts';
import { ResourceCache } from '../../src/discovery/resource-cache.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { encodeService, encodeTrafficPolicy, encodeWorkload } from '../../src/discovery/workload-codec.ts';
import type { Authorization } from '../../src/policy/authorization.ts';
import type { Service, TrafficPolicy, Workload } from '../../src/policy/model.ts';
import { random } from '../support/mesh-hops.ts';

const SEED = Number(process.env.FUZZ_SEED ?? Date.now() % 1_000_000);
const { address, authorization, trafficPolicy } = typeUrls;

function workload(uid: string, of: Partial<Workload> = {}): Workload {
  const rest = { identity: undefined, meshed: true, hbone: false, healthy: true, services: new Map(), authorizationPolicies: [] };
  return { uid, name: uid, namespace: 'foo', addresses: [], ...rest, ...of };
}

function service(key: string, addresses: readonly string[]): Service {
  const [namespace = '', hostname = ''] = key.split('/');
  return { key, name: hostname, namespace, hostname, addresses, ports: [], subjectAltNames: [], clientTls: undefined };
}

function policyOf(uid: string, source = 'the test'): TrafficPolicy {
  const rest = { announced: undefined, shadow: undefined, clientTls: [], rootClientTls: [], trustDomainAliases: [] };
  return { workload: uid, inbound: { mode: 'STRICT', source }, inboundPorts: new Map(), outbound: 'ALLOW_ANY', ...rest };
}

const deny = (name: string, scope: Authorization['scope'], namespace = 'foo'): Authorization => ({
  ...{ name, namespace, scope, action: 'DENY', dryRun: false, rules: [] },
});

class Mesh {
  readonly index = new MeshIndex(new ResourceCache());
  readonly workloads = new Map<string, Workload>();
  readonly services = new Map<string, Service>();
  readonly authorizations = new Map<string, Authorization>();

  constructor() {
    for (const typeUrl of [trafficPolicy, address, authorization]) this.index.apply(typeUrl, { upserts: new Map(), removed: [] });
  }

  setWorkload(uid: string, value: Workload | undefined): void {
    if (value === undefined) this.workloads.delete(uid);
    else this.workloads.set(uid, value);
    if (value !== undefined)
      this.index.apply(trafficPolicy, { upserts: new Map([[uid, encodeTrafficPolicy(policyOf(uid))]]), removed: [] });
    this.#set(address, uid, value === undefined ? undefined : encodeWorkload(value));
    if (value === undefined) this.index.apply(trafficPolicy, { upserts: new Map(), removed: [uid] });
  }

  setService(key: string, value: Service | undefined): void {
    if (value === undefined) this.services.delete(key);
    else this.services.set(key, value);
    this.#set(address, key, value === undefined ? undefined : encodeService(value));
  }

  setAuthorization(key: string, value: Authorization | undefined): void {
    if (value === undefined) this.authorizations.delete(key);
    else this.authorizations.set(key, value);
    this.#set(authorization, key, value === undefined ? undefined : encodeAuthorization(value));
  }

  /** What belongs to names, by going through everything. */
  seenBy(names: ReadonlySet<string>, uid: string): Record<string, string[]> {
    const seen = new Set<string>();
    for (const each of this.services.values()) {
      if (!each.addresses.some((ip) => names.has(`/${ip}`))) continue;
      seen.add(each.key);
      for (const member of this.workloads.values()) if (member.services.has(each.key)) seen.add(member.uid);
    }
    for (const each of this.workloads.values()) {
      if (each.uid !== uid && !each.addresses.some((ip) => names.has(`/${ip}`))) continue;
      seen.add(each.uid);
      for (const key of each.services.keys()) if (this.services.has(key)) seen.add(key);
    }
    const own = this.workloads.get(uid);
    const holding = [...this.authorizations].filter(
      ([key, { scope, namespace }]) =>
        own !== undefined &&
        (scope === 'GLOBAL' || (scope === 'NAMESPACE' && namespace === own.namespace) || own.authorizationPolicies.includes(key)),
    );
    return {
      [address]: [...seen].sort(),
      [trafficPolicy]: [...seen].filter((name) => this.workloads.has(name)).sort(),
      [authorization]: holding.map(([key]) => key).sort(),
    };
  }

  #set(typeUrl: string, name: string, value: Uint8Array | undefined): void {
    this.index.apply(
      typeUrl,
      value === undefined ? { upserts: new Map(), removed: [name] } : { upserts: new Map([[name, value]]), removed: [] },
    );
  }
}

/** What a stream makes of what it is told alone. */
class Mirror {
  readonly view: AddressView;
  readonly versions = new Map<string, Map<string, string>>([address, trafficPolicy, authorization].map((typeUrl) => [typeUrl, new Map()]));
  heard = 0;
  readonly stop: () => void;

  constructor(mesh: Mesh, { budget = new NameBudget(), workload = 'foo' } = {}) {
    this.view = new AddressView(mesh.index, budget.open(workload));
    this.stop = this.view.subscribe((typeUrl, names, along = []) => this.take([[typeUrl, names], ...along]));
  }

  ask(typeUrl: string, added: readonly string[], dropped: readonly string[] = []): readonly string[] {
    const { answers, touched } = this.view.change(typeUrl, { added, dropped });
    this.take(touched);
    return answers;
  }

  take(touched: Iterable<readonly [string, readonly string[] | undefined]>): void {
    for (const [typeUrl, names] of touched) {
      const [mine, there] = [this.versions.get(typeUrl), this.view.resources(typeUrl)];
      for (const name of names ?? []) {
        this.heard++;
        const version = there?.get(name)?.version;
        if (version === undefined) mine?.delete(name);
        else mine?.set(name, version);
      }
    }
  }

  get names(): Record<string, string[]> {
    return Object.fromEntries([...this.versions].map(([typeUrl, versions]) => [typeUrl, [...versions.keys()].sort()]));
  }

  get shown(): Record<string, string[]> {
    return Object.fromEntries(
      [...this.versions.keys()].map((typeUrl) => [typeUrl, [...(this.view.resources(typeUrl) ?? [])].map(([name]) => name).sort()]),
    );
  }
}

describe('the view of a stream', () => {
  it('is-what-belongs-to-its-names-whatever-changes-and-it-hears-of-all-of-it', () => {
    for (let run = 0; run < 60; run++) {
      const next = random(SEED + run);
      const mesh = new Mesh();
      const streams = ['w0', 'w1', 'w2'].map((uid) => ({ uid, names: new Set<string>(), mirror: new Mirror(mesh) }));
      for (const { uid, mirror } of streams) for (const typeUrl of [trafficPolicy, address, authorization]) mirror.ask(typeUrl, [uid]);
      const ip = () => `10.0.0.${next(8)}`;
      for (let step = 0; step < 200; step++) {
        const uid = `w${next(6)}`;
        const key = `foo/s${next(4)}`;
        const name = `p${next(4)}`;
        switch (next(8)) {
          case 0:
            mesh.setWorkload(uid, undefined);
            break;
          case 1:
          case 2:
          case 3: {
            const services = new Map(
              [0, 1, 2, 3].filter(() => next(3) === 0).map((nth) => [`foo/s${nth}`, [{ servicePort: 80, targetPort: 80 }]]),
            );
            const authorizationPolicies = [0, 1, 2, 3].filter(() => next(3) === 0).map((nth) => `foo/p${nth}`);
            mesh.setWorkload(
              uid,
              workload(uid, { addresses: [ip()], services, authorizationPolicies, namespace: next(4) === 0 ? 'bar' : 'foo' }),
            );
            break;
          }
          case 4:
            mesh.setService(key, next(3) === 0 ? undefined : service(key, next(4) === 0 ? [] : [ip()]));
            break;
          case 5: {
            const scope = (['GLOBAL', 'NAMESPACE', 'WORKLOAD_SELECTOR'] as const)[next(3)] ?? 'GLOBAL';
            mesh.setAuthorization(`foo/${name}`, next(4) === 0 ? undefined : deny(name, scope));
            break;
          }
          default: {
            const stream = streams[next(3)];
            const asked = `/${ip()}`;
            if (stream?.names.delete(asked)) stream.mirror.ask(address, [], [asked]);
            else {
              stream?.names.add(asked);
              stream?.mirror.ask(address, [asked]);
            }
          }
        }
        for (const stream of streams) {
          const where = `seed ${SEED}, run ${run}, step ${step}, ${stream.uid}`;
          const expected = mesh.seenBy(stream.names, stream.uid);
          assert.deepEqual(stream.mirror.shown, expected, where);
          assert.deepEqual(stream.mirror.names, expected, where);
          for (const [typeUrl, versions] of stream.mirror.versions)
            for (const [each, version] of versions) assert.equal(version, stream.mirror.view.resources(typeUrl)?.get(each)?.version, where);
        }
      }
      for (const { mirror } of streams) mirror.stop();
    }
  });

  it('costs-nothing-where-nothing-of-it-changes', () => {
    const mesh = new Mesh();
    const mirror = new Mirror(mesh);
    mesh.setWorkload('w0', workload('w0', { addresses: ['10.0.0.1'] }));
    for (const typeUrl of [trafficPolicy, authorization]) mirror.ask(typeUrl, ['w0']);
    mirror.ask(address, ['/10.0.0.1']);
    const before = mirror.heard;
    for (let nth = 1; nth < 100; nth++) mesh.setWorkload(`w${nth}`, workload(`w${nth}`, { addresses: [`10.0.1.${nth}`] }));
    mesh.setAuthorization('bar/p', deny('p', 'NAMESPACE', 'bar'));
    assert.equal(mirror.heard, before);
    mesh.setWorkload('w0', workload('w0', { addresses: ['10.0.0.1'], healthy: false }));
    assert.equal(mirror.heard, before + 1);
    mirror.stop();
  });

  it('says-who-answers-to-a-name-and-under-which-of-its-addresses-it-was-asked-for', () => {
    const mesh = new Mesh();
    const mirror = new Mirror(mesh);
    mesh.setWorkload('w0', workload('w0', { addresses: ['10.0.0.1', 'fd00::1'] }));
    assert.deepEqual(mirror.ask(address, ['/fd00::1', '/10.0.0.9']), ['w0']);
    assert.deepEqual(mirror.view.aliasesOf(address, 'w0'), ['/fd00::1']);
    assert.deepEqual(
      ['/fd00::1', '/10.0.0.9', '/10.0.0.1'].map((name) => mirror.view.isAnswered(address, name)),
      [true, false, false],
    );
    mirror.stop();
  });

  it('is-told-as-a-whole-or-not-at-all', () => {
    const index = new MeshIndex(new ResourceCache());
    const view = new AddressView(index, new NameBudget().open('foo'));
    const told: string[] = [];
    const stop = view.subscribe((typeUrl, _, along = []) => told.push(typeUrl, ...[...along].map(([each]) => each)));
    view.change(address, { added: ['/10.0.0.1'], dropped: [] });
    index.apply(address, { upserts: new Map([['w0', encodeWorkload(workload('w0', { addresses: ['10.0.0.1'] }))]]), removed: [] });
    index.apply(authorization, { upserts: new Map(), removed: [] });
    assert.equal(view.resources(address), undefined);
    index.apply(trafficPolicy, { upserts: new Map(), removed: [] });
    assert.equal(view.resources(address)?.has('w0'), true);
    assert.equal(told.at(-1), address);
    stop();
  });
});

describe('what an agent takes', () => {
  it('refuses-what-no-sidecar-could-use-and-keeps-what-it-has', () => {
    const mesh = new Mesh();
    mesh.setWorkload('w0', workload('w0', { addresses: ['10.0.0.1'] }));
    const good = encodeWorkload(workload('w1', { addresses: ['10.0.0.2'] }));
    for (const [name, bytes] of [
      ['w2', Uint8Array.of(0xff)],
      ['w2', good],
    ] as const) {
      const upserts = new Map([['w1', good] as const, [name, bytes] as const]);
      assert.throws(() => mesh.index.apply(address, { upserts, removed: ['w0'] }));
    }
    assert.deepEqual([mesh.index.at('/10.0.0.1'), mesh.index.at('/10.0.0.2')], [['w0'], []]);
    mesh.index.apply(address, { upserts: new Map([['w1', good]]), removed: ['w0'] });
    assert.deepEqual([mesh.index.at('/10.0.0.1'), mesh.index.at('/10.0.0.2')], [[], ['w1']]);
  });

  it('goes-on-with-what-comes-next-when-somebody-could-not-hear-of-a-change', () => {
    const { index } = new Mesh();
    const deaf = index.cache.subscribe(() => {
      throw new Error('deaf');
    });
    const change = (uid: string, ip: string) => ({
      upserts: new Map([[uid, encodeWorkload(workload(uid, { addresses: [ip] }))]]),
      removed: [],
    });
    assert.throws(() => index.apply(address, change('w0', '10.0.0.1')), /deaf/);
    deaf();
    index.cache.apply(address, change('w1', '10.0.0.2'));
    assert.deepEqual(index.at('/10.0.0.2'), ['w1']);
  });

  const names = (from: number, count: number) => Array.from({ length: count }, (_, nth) => `/10.0.${from}.${nth}`);

  it('takes-names-up-to-a-bound-for-all-streams-and-leaves-each-some-of-its-own', () => {
    const mesh = new Mesh();
    const budget = new NameBudget({ all: 200, each: 150 });
    const [greedy, modest] = ['greedy', 'modest'].map((workload) => new Mirror(mesh, { budget, workload }));
    assert.ok(greedy !== undefined && modest !== undefined);
    greedy.ask(address, names(1, 100));
    assert.throws(() => greedy.ask(address, names(2, 1)), /together/);
    modest.ask(address, names(3, 64));
    assert.throws(() => modest.ask(address, names(4, 1)), /together/);
    greedy.stop();
    modest.ask(address, names(4, 36));
    modest.stop();
    assert.throws(() => new Mirror(mesh, { budget }).ask(address, ['*']), /another one/);
  });

  it('one-workload-with-many-streams-leaves-others-what-they-need', () => {
    const mesh = new Mesh();
    const budget = new NameBudget({ all: 4_000, each: 4_000 });
    const greedy = Array.from({ length: 20 }, () => new Mirror(mesh, { budget, workload: 'greedy' }));
    for (const [nth, stream] of greedy.entries()) {
      try {
        stream.ask(address, names(nth, 200));
      } catch {
        // It has all that it can get.
      }
    }
    const others = ['a', 'b'].map((workload) => new Mirror(mesh, { budget, workload }));
    for (const other of others) other.ask(address, names(1, 200));
    for (const stream of [...greedy, ...others]) stream.stop();
    // All of it was given back.
    const next = new Mirror(mesh, { budget, workload: 'next' });
    next.ask(address, names(1, 2_000));
    next.stop();
    const bounded = new Mirror(mesh, { budget: new NameBudget({ all: 4_000, each: 100 }) });
    assert.throws(() => bounded.ask(address, names(1, 101)), /together/);
  });

  it('counts-the-names-of-a-stream-whatever-their-types-and-takes-those-of-few-workloads', () => {
    const mesh = new Mesh();
    const stream = new Mirror(mesh);
    for (const typeUrl of [authorization, trafficPolicy]) {
      stream.ask(typeUrl, ['w0', 'w1', 'w2', 'w3']);
      assert.throws(() => stream.ask(typeUrl, ['w4']), /more than 4 workloads/);
    }
    stream.ask(address, names(1, 4_088));
    assert.throws(() => stream.ask(address, ['/10.1.0.1']), /more than 4096 names/);
    stream.ask(address, ['/10.1.0.1'], names(1, 1));
    stream.stop();
  });

  it('an-empty-request-costs-no-look-at-the-authorizations', () => {
    const mesh = new Mesh();
    mesh.setWorkload('w0', workload('w0'));
    const stream = new Mirror(mesh);
    let looks = 0;
    const holdingFor = mesh.index.holdingFor.bind(mesh.index);
    mesh.index.holdingFor = (uid) => {
      looks++;
      return holdingFor(uid);
    };
    stream.ask(authorization, ['w0']);
    assert.equal(looks, 1);
    for (const again of [[], ['w0']]) stream.ask(authorization, again);
    assert.equal(looks, 1);
    stream.ask(authorization, [], ['w0']);
    assert.deepEqual(stream.names[authorization], []);
    stream.stop();
  });
});
