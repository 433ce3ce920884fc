// What holds of every injected pod, whatever it looked like before; and how much a pod's own word about itself is worth.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { jsonPatch, pointerParts } from '../../../src/injector/json-patch.ts';
import { isJsonObject } from '../../../src/spiffe/strict-json.ts';
import { IMAGE, injectIn } from './injecting.ts';

type Json = Readonly<Record<string, unknown>>;

const { inject } = injectIn();

/** Pods that differ in what the injector looks at, drawn by a fixed sequence so that a failure can be repeated. */
function* pods(count: number): Generator<Json> {
  let state = 42;
  const draw = (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const maybe = <T>(value: T): T[] => (draw(2) === 0 ? [] : [value]);
  const one = <T>(...values: readonly [T, ...T[]]): T => values[draw(values.length)] ?? values[0];
  const handler = () =>
    one<Json>(
      { httpGet: { path: '/a/~b', port: 'web' } },
      { tcpSocket: { port: 8080 } },
      { grpc: { port: 9 } },
      { exec: { command: ['x'] } },
    );
  const container = (name: string, more: Json = {}): Json => ({
    name,
    image: `registry.example/${name}:7`,
    ports: [{ name: 'web', containerPort: 8000 + draw(100) }, ...maybe({ containerPort: 15008, protocol: 'UDP' })],
    env: [{ name: 'A', value: '$(B) $$' }],
    ...Object.assign({}, ...maybe({ livenessProbe: { ...handler(), periodSeconds: draw(9) } })),
    ...Object.assign({}, ...maybe({ readinessProbe: handler() }), ...maybe({ lifecycle: { preStop: handler(), stopSignal: 'SIGQUIT' } })),
    ...more,
  });
  for (let index = 0; index < count; index++) {
    yield {
      ...Object.assign({}, ...maybe({ apiVersion: 'v1', kind: 'Pod' })),
      ...Object.assign(
        {},
        ...maybe({
          metadata: {
            name: `pod-${index}`,
            ...Object.assign({}, ...maybe({ labels: { app: 'x', 'a/b': '~' } }), ...maybe({ labels: null })),
            ...Object.assign({}, ...maybe({ annotations: { 'sidecar.istio.io/nativeSidecar': one('true', 'false') } })),
          },
        }),
      ),
      spec: {
        containers: Array.from({ length: 1 + draw(3) }, (_, at) => container(`app-${at}`)),
        ...Object.assign(
          {},
          ...maybe({ initContainers: [container('setup'), container('shipper', { livenessProbe: null, lifecycle: null })] }),
        ),
        ...Object.assign({}, ...maybe({ volumes: [{ name: 'data', emptyDir: {}, new: [1] }] })),
        ...Object.assign(
          {},
          ...maybe({ securityContext: { runAsUser: 1000 + draw(300) } }),
          ...maybe({ unknown: { deep: [null, { x: 1.5 }] } }),
        ),
      },
    };
  }
}

/** RFC 6902, `add` alone. Throws where a parent is missing. */
function apply(target: Json, operations: ReturnType<typeof jsonPatch>): unknown {
  const result = structuredClone(target);
  for (const { path, value } of operations) {
    const parts = pointerParts(path);
    let at: unknown = result;
    for (const part of parts.slice(0, -1)) {
      assert.ok(isJsonObject(at) && Object.hasOwn(at, part), `${path}: ${part} is missing`);
      at = at[part];
    }
    assert.ok(isJsonObject(at));
    Object.defineProperty(at, parts.at(-1) ?? '', { value: structuredClone(value), enumerable: true, writable: true, configurable: true });
  }
  return result;
}

const object = (value: unknown): Json => (isJsonObject(value) ? value : {});
const list = (value: unknown): Json[] => (Array.isArray(value) ? value.map(object) : []);

function injected(pod: Json): Json {
  const result = inject(pod);
  assert.equal(result.kind, 'injected', JSON.stringify(result));
  return result.kind === 'injected' ? result.pod : {};
}

const PROBES = ['livenessProbe', 'readinessProbe', 'startupProbe', 'lifecycle'];
const withoutProbes = (container: Json) => Object.fromEntries(Object.entries(container).filter(([name]) => !PROBES.includes(name)));

describe('every injected pod', () => {
  const samples = [...pods(200)].map((before) => ({ before, copy: structuredClone(before), after: injected(before) }));

  test('leaves-the-object-it-was-given-as-it-was', () => {
    for (const { before, copy } of samples) assert.deepEqual(before, copy);
  });

  test('is-not-injected-twice', () => {
    for (const { after } of samples) assert.deepEqual(inject(after), { kind: 'skipped', reason: 'the sidecar is there already' });
  });

  test('has-all-that-the-pod-had-but-the-rewritten-probes', () => {
    for (const { before, after } of samples) {
      for (const which of ['containers', 'initContainers']) {
        const kept = list(object(after.spec)[which]).filter(({ name }) => !String(name).startsWith('handfast-'));
        assert.deepEqual(kept.map(withoutProbes), list(object(before.spec)[which]).map(withoutProbes));
      }
      const volumes = list(object(after.spec).volumes).filter(({ name }) => !String(name).startsWith('handfast-'));
      assert.deepEqual(volumes, list(object(before.spec).volumes));
      for (const which of ['labels', 'annotations']) {
        const now = object(object(after.metadata)[which]);
        for (const [name, value] of Object.entries(object(object(before.metadata)[which]))) assert.equal(now[name], value);
      }
      const others = (pod: Json) => ({ ...object(pod.spec), containers: 0, initContainers: 0, volumes: 0 });
      assert.deepEqual(others(after), others(before));
      assert.equal(object(after.metadata).name, object(before.metadata).name);
    }
  });

  test('is-what-the-patch-makes-of-the-pod', () => {
    for (const { before, after } of samples) {
      const operations = jsonPatch({ before, after });
      assert.deepEqual(apply(before, operations), after);
      // Over the wire, too.
      assert.deepEqual(apply(before, JSON.parse(JSON.stringify(operations))), after);
    }
  });

  test('keeps-the-fields-of-each-probe-beside-what-is-asked', () => {
    for (const { before, after } of samples) {
      for (const container of list(object(before.spec).containers)) {
        const { periodSeconds } = object(container.livenessProbe);
        const now = list(object(after.spec).containers).find(({ name }) => name === container.name);
        assert.equal(object(now?.livenessProbe).periodSeconds, periodSeconds);
      }
    }
  });

  test('has-a-sidecar-that-meets-the-level-restricted', () => {
    for (const { after } of samples) {
      const all = [...list(object(after.spec).initContainers), ...list(object(after.spec).containers)];
      assert.equal(all.filter(({ name }) => name === 'handfast-init').length, 1);
      const [sidecar, ...more] = all.filter(({ name }) => name === 'handfast-proxy');
      assert.deepEqual(more, []);
      const context = object(sidecar?.securityContext);
      assert.equal(context.runAsNonRoot, true);
      assert.equal(context.allowPrivilegeEscalation, false);
      assert.deepEqual(context.capabilities, { drop: ['ALL'] });
      assert.deepEqual(context.seccompProfile, { type: 'RuntimeDefault' });
    }
  });
});

describe('a patch', () => {
  test('escapes-names', () => {
    assert.deepEqual(jsonPatch({ before: { 'a/b': { '~': 1 } }, after: { 'a/b': { '~': 2 } } }), [
      { op: 'add', path: '/a~1b/~0', value: 2 },
    ]);
    assert.deepEqual(pointerParts('/a~1b/~0/~01'), ['a/b', '~', '~1']);
  });

  test('makes-parents-that-are-missing-or-null', () => {
    const after = { metadata: { labels: { a: 'b' } } };
    assert.deepEqual(jsonPatch({ before: {}, after }), [{ op: 'add', path: '/metadata', value: after.metadata }]);
    assert.deepEqual(jsonPatch({ before: { metadata: null }, after }), [{ op: 'add', path: '/metadata', value: after.metadata }]);
    assert.deepEqual(jsonPatch({ before: { metadata: { labels: null } }, after }), [
      { op: 'add', path: '/metadata/labels', value: { a: 'b' } },
    ]);
  });

  test('of-what-is-the-same-is-empty', () => {
    assert.deepEqual(jsonPatch({ before: { a: [1, { b: 2 }] }, after: { a: [1, { b: 2 }] } }), []);
  });
});

describe('a pod that looks injected', () => {
  const pod = { metadata: {}, spec: { containers: [{ name: 'app', image: 'registry.example/cart:7' }] } };
  const real = injected(pod);
  const edited = (edit: (parts: { init: Json; sidecar: Json; metadata: Json }) => { init?: Json; sidecar?: Json; metadata?: Json }) => {
    const [init = {}, sidecar = {}] = list(object(real.spec).initContainers);
    const parts = { init, sidecar, metadata: object(real.metadata) };
    const now = { ...parts, ...edit(parts) };
    return { ...real, metadata: now.metadata, spec: { ...object(real.spec), initContainers: [now.init, now.sidecar] } };
  };
  const claims: Readonly<Record<string, Json>> = {
    'with-another-image': edited(({ sidecar }) => ({ sidecar: { ...sidecar, image: 'registry.example/other:1' } })),
    'with-another-image-of-the-init-container': edited(({ init }) => ({ init: { ...init, image: 'registry.example/other:1' } })),
    'with-another-command': edited(({ sidecar }) => ({ sidecar: { ...sidecar, command: ['sleep', '1d'] } })),
    'with-another-role': edited(({ sidecar }) => ({ sidecar: { ...sidecar, args: ['status'] } })),
    'that-captures-less': edited(({ init }) => ({ init: { ...init, args: ['iptables', 'apply', '--include-inbound-ports='] } })),
    'that-redirects-nothing': edited(({ init }) => ({ init: { ...init, args: ['iptables', 'print'] } })),
    'whose-sidecar-is-captured-itself': edited(({ sidecar }) => ({ sidecar: { ...sidecar, securityContext: { runAsUser: 1000 } } })),
    'whose-sidecar-is-an-init-container-that-ends': edited(({ sidecar }) => ({ sidecar: { ...sidecar, restartPolicy: undefined } })),
    'without-the-status': edited(({ metadata }) => ({ metadata: { labels: metadata.labels } })),
    'without-the-labels': edited(({ metadata }) => ({ metadata: { annotations: metadata.annotations } })),
  };
  for (const [name, claim] of Object.entries(claims)) {
    test(`${name}-is-refused`, () => {
      const result = inject(claim);
      assert.equal(result.kind, 'refused');
      assert.match(result.kind === 'refused' ? result.reason : '', /reserved/);
    });
  }

  test('and-is-what-it-says-is-left-alone', () => {
    assert.equal(inject(edited(() => ({}))).kind, 'skipped');
  });

  test('by-the-image-of-its-own-annotation-is-believed', () => {
    const image = 'registry.example/handfast:canary';
    const other = injected({ ...pod, metadata: { annotations: { 'sidecar.istio.io/proxyImage': image } } });
    assert.equal(list(object(other.spec).initContainers)[1]?.image, image);
    assert.notEqual(image, IMAGE);
    assert.equal(inject(other).kind, 'skipped');
  });

  test('and-has-come-back-from-the-api-server-with-its-defaults-is-believed', () => {
    const spec = object(real.spec);
    const defaulted = (container: Json) => ({
      ...container,
      terminationMessagePath: '/dev/termination-log',
      terminationMessagePolicy: 'File',
    });
    const back = { ...real, spec: { ...spec, initContainers: list(spec.initContainers).map(defaulted), dnsPolicy: 'ClusterFirst' } };
    assert.equal(inject(back).kind, 'skipped');
  });
});

describe('an injected manifest', () => {
  const folder = new URL('goldens/', import.meta.url);

  test('means-what-it-says-to-readers-of-yaml-1.1-and-1.2-alike', () => {
    for (const file of readdirSync(folder).filter((name) => name.endsWith('.out.yaml') && !name.startsWith('documents-of-other-kinds'))) {
      for (const document of readFileSync(new URL(file, folder), 'utf8').split(/^---$/m)) {
        const [older, newer] = [parse(document, { version: '1.1' }), parse(document, { version: '1.2' })];
        // What the user wrote and nobody touched may still be the older kind's own.
        if (file !== 'pod-of-yaml-1.1.out.yaml') assert.deepEqual(older, newer, file);
        assert.ok(older !== null, file);
      }
    }
  });
});
