// A pod that says it was injected is believed if it is what would be put in, and not for a field less or more.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Injection } from '../../../src/injector/inject-pod.ts';
import { IMAGE, injectIn } from './injecting.ts';

interface Part {
  name: string;
  [member: string]: unknown;
}
interface PodJson {
  metadata: { labels: Record<string, string>; annotations: Record<string, string> };
  spec: { initContainers: Part[]; containers: Part[]; volumes: Part[]; [member: string]: unknown };
}

const BARE = {
  metadata: { labels: { app: 'cart' } },
  spec: {
    initContainers: [
      { name: 'shipper', restartPolicy: 'Always', image: 'a', startupProbe: { tcpSocket: { port: 9000 }, periodSeconds: 2 } },
    ],
    containers: [
      {
        name: 'app',
        image: 'registry.example/cart:7',
        ports: [{ name: 'web', containerPort: 8080 }],
        livenessProbe: { httpGet: { path: '/$(live)', port: 'web', httpHeaders: [{ name: 'a', value: 'b' }] }, timeoutSeconds: 7 },
        lifecycle: { preStop: { httpGet: { path: '/bye', port: 8080 } } },
      },
    ],
  },
};

function podOf(result: Injection): PodJson {
  assert.equal(result.kind, 'injected', JSON.stringify(result));
  return JSON.parse(JSON.stringify(result.kind === 'injected' ? result.pod : {}));
}

const { inject } = injectIn();
const injected = (
  change: (parts: { pod: PodJson; init: Part; sidecar: Part; app: Part }) => void = () => undefined,
  of = injectIn(),
): PodJson => {
  const pod = podOf(of.inject(BARE));
  const [init, sidecar] = [...pod.spec.initContainers, ...pod.spec.containers].filter(({ name }) => name.startsWith('handfast-'));
  const app = pod.spec.containers.find(({ name }) => name === 'app');
  assert.ok(init !== undefined && sidecar !== undefined && app !== undefined);
  change({ pod, init, sidecar, app });
  return pod;
};
const reasonOf = (result: Injection) => (result.kind === 'injected' ? '' : result.reason);
const list = (value: unknown): Part[] => (Array.isArray(value) ? value : []);

describe('a pod with all that is put in', () => {
  for (const sidecar of ['native', 'classic']) {
    // A classic sidecar cannot serve a native one's startup probe.
    const settings = { config: { sidecar } };
    const before = sidecar === 'native' ? BARE : { ...BARE, spec: { containers: BARE.spec.containers } };
    test(`${sidecar}-is-left-alone`, () => {
      const once = podOf(injectIn(settings).inject(before));
      assert.deepEqual(injectIn(settings).inject(once), { kind: 'skipped', reason: 'the sidecar is there already' });
    });
  }

  test('as-an-api-server-gives-it-back-is-left-alone', () => {
    const pod = injected(({ pod, init, sidecar }) => {
      for (const container of [init, sidecar]) {
        Object.assign(container, { terminationMessagePath: '/dev/termination-log', terminationMessagePolicy: 'File' });
        Object.assign(container, { resources: JSON.parse(JSON.stringify(container.resources).replaceAll('"2000m"', '"2"')) });
      }
      for (const entry of list(sidecar.env).slice(0, 4))
        entry.valueFrom = JSON.parse(JSON.stringify(entry.valueFrom).replace('{"fieldPath', '{"apiVersion":"v1","fieldPath'));
      const startup = { ...Object(sidecar.startupProbe), successThreshold: 1 };
      const { initialDelaySeconds, ...readiness } = { ...Object(sidecar.readinessProbe), successThreshold: 1 };
      assert.equal(initialDelaySeconds, 0);
      for (const probe of [startup, readiness]) probe.httpGet = { ...probe.httpGet, scheme: 'HTTP' };
      Object.assign(sidecar, { startupProbe: startup, readinessProbe: readiness });
      for (const volume of pod.spec.volumes)
        if (volume.projected !== undefined) volume.projected = { ...Object(volume.projected), defaultMode: 420 };
    });
    assert.deepEqual(inject(pod), { kind: 'skipped', reason: 'the sidecar is there already' });
  });

  test('of-an-injector-with-another-version-of-the-image-is-left-alone', () => {
    const older = injectIn({ config: { image: 'registry.example/handfast:1.2.2' } });
    assert.equal(inject(injected(undefined, older)).kind, 'skipped');
    const other = injectIn({ config: { image: 'registry.example/other:1.2.3' } });
    assert.equal(inject(injected(undefined, other)).kind, 'refused');
    const allowing = injectIn({ config: { allowedProxyImages: ['registry.example/other'] } });
    assert.equal(allowing.inject(injected(undefined, other)).kind, 'skipped');
  });

  test('among-which-others-have-put-themselves-is-put-right', () => {
    const late = { name: 'late', image: 'a', livenessProbe: { httpGet: { path: '/late', port: 7000 } } };
    const pod = injected(({ pod }) => {
      pod.spec.initContainers.unshift({ name: 'early', image: 'a' });
      pod.spec.containers.push({ ...late });
    });
    const again = podOf(inject(pod));
    assert.deepEqual(
      again.spec.initContainers.map(({ name }) => name),
      ['handfast-init', 'handfast-proxy', 'early', 'shipper'],
    );
    const probers = JSON.parse(String(list(again.spec.initContainers[1]?.env).at(-1)?.value).replaceAll('$$', () => '$'));
    assert.deepEqual(Object.keys(probers).sort(), [
      '/app-health/app/livez',
      '/app-health/late/livez',
      '/app-health/shipper/startupz',
      '/app-lifecycle/app/prestop',
    ]);
    assert.equal(probers['/app-health/app/livez'].httpGet.path, '/$(live)');
    assert.equal(probers['/app-health/app/livez'].timeoutSeconds, 7);
    assert.equal(inject(again).kind, 'skipped');
  });

  test('but-probers-that-nobody-asks-for-loses-those', () => {
    const pod = injected(({ sidecar }) => {
      const entry = list(sidecar.env).at(-1);
      assert.ok(entry !== undefined);
      entry.value = String(entry.value).replace('{', '{"/app-health/ghost/livez":{"tcpSocket":{"port":9}},');
    });
    assert.doesNotMatch(JSON.stringify(podOf(inject(pod))), /ghost/);
  });
});

describe('a pod that claims a sidecar', () => {
  const forged: Readonly<Record<string, Parameters<typeof injected>[0]>> = {
    'whose-init-container-is-not-waited-for': ({ init }) => Object.assign(init, { restartPolicy: 'Always' }),
    'whose-init-container-may-redirect-nothing': ({ init }) => Object.assign(init, { securityContext: { runAsUser: 0 } }),
    'whose-sidecar-only-prints-help': ({ sidecar }) => Object.assign(sidecar, { args: ['proxy', '--help'] }),
    'whose-sidecar-has-a-flag-more': ({ sidecar }) => list(sidecar.args).push(...(['--metrics=all'] as never[])),
    'whose-sidecar-loads-more': ({ sidecar }) => list(sidecar.env).push({ name: 'NODE_OPTIONS', value: '--import=/evil.mjs' }),
    'whose-sidecar-takes-its-probers-from-elsewhere': ({ sidecar }) =>
      list(sidecar.env).push({ name: 'HANDFAST_APP_PROBERS', valueFrom: { configMapKeyRef: { name: 'a', key: 'b' } } }),
    'whose-sidecar-has-more-environment': ({ sidecar }) => Object.assign(sidecar, { envFrom: [{ configMapRef: { name: 'a' } }] }),
    'whose-sidecar-has-a-hook': ({ sidecar }) => Object.assign(sidecar, { lifecycle: { postStart: { exec: { command: ['sh'] } } } }),
    'whose-sidecar-has-a-mount-more': ({ sidecar }) => list(sidecar.volumeMounts).push({ name: 'data', mountPath: '/app' }),
    'whose-sidecar-has-the-pods-token': ({ sidecar }) =>
      Object.assign(sidecar, { volumeMounts: list(sidecar.volumeMounts).filter(({ name }) => name !== 'handfast-no-api') }),
    'whose-sidecar-may-more': ({ sidecar }) =>
      Object.assign(sidecar, { securityContext: { ...Object(sidecar.securityContext), allowPrivilegeEscalation: true } }),
    'whose-containers-have-two-images': ({ init }) => Object.assign(init, { image: 'registry.example/handfast:1.2.2' }),
    'whose-volumes-are-empty': ({ pod }) => {
      pod.spec.volumes = pod.spec.volumes.map(({ name }) => ({ name, emptyDir: {} }));
    },
    'whose-volumes-are-in-another-order': ({ pod }) => pod.spec.volumes.reverse(),
    'with-one-of-ours-twice': ({ pod, sidecar }) => pod.spec.containers.push({ ...sidecar }),
    'beside-an-application-with-the-sidecars-id': ({ app }) => Object.assign(app, { securityContext: { runAsUser: 1337 } }),
    'beside-an-application-with-the-sidecars-socket': ({ app }) =>
      Object.assign(app, { volumeMounts: [{ name: 'handfast-agent', mountPath: '/agent' }] }),
    'on-the-nodes-network': ({ pod }) => Object.assign(pod.spec, { hostNetwork: true }),
  };
  for (const [name, change] of Object.entries(forged)) {
    test(`${name}-is-refused`, () => {
      assert.equal(inject(injected()).kind, 'skipped');
      assert.equal(inject(injected(change)).kind, 'refused');
    });
  }

  test('hears-what-differs', () => {
    const pod = injected(({ sidecar }) => Object.assign(sidecar, { args: ['proxy', '--help'], tty: true }));
    assert.match(reasonOf(inject(pod)), /something else than is put in here \(handfast-proxy: args, handfast-proxy: tty\)/);
  });

  test('in-a-namespace-that-forbids-it-is-refused-as-one-without', () => {
    const restricted = injectIn({ namespaceLabels: { 'istio-injection': 'enabled', 'pod-security.kubernetes.io/enforce': 'restricted' } });
    assert.match(reasonOf(restricted.inject(injected())), /Pod Security level restricted/);
  });

  test('and-says-it-is-to-have-none-is-refused-and-without-the-claim-skipped', () => {
    const out = (labels: object, annotations: object = {}) =>
      inject({ metadata: { labels: { 'sidecar.istio.io/inject': 'false', ...labels }, annotations }, spec: BARE.spec });
    assert.equal(out({}).kind, 'skipped');
    assert.equal(out({ 'security.istio.io/tlsMode': 'disabled' }).kind, 'skipped');
    assert.match(reasonOf(out({ 'security.istio.io/tlsMode': 'istio' })), /claims a sidecar/);
    assert.equal(out({ 'networking.istio.io/tunnel': 'http' }).kind, 'refused');
    assert.equal(out({}, { 'sidecar.istio.io/status': '{}' }).kind, 'refused');
  });
});

describe('the annotation proxyImage', () => {
  const asking = (image: string, config: object = {}) =>
    injectIn({ config }).inject({ ...BARE, metadata: { annotations: { 'sidecar.istio.io/proxyImage': image } } }).kind;

  test('takes-another-version-of-the-same-image', () => {
    assert.equal(asking('registry.example/handfast:canary'), 'injected');
    assert.equal(asking(`${IMAGE}@sha256:${'0'.repeat(64)}`), 'injected');
    assert.equal(asking('handfast:2', { image: 'handfast' }), 'injected');
  });

  test('takes-no-other-image-unless-it-is-allowed', () => {
    for (const image of ['evil.example/handfast:1', 'registry.example/handfast/more', 'registry.example:5000/handfast', 'handfast'])
      assert.equal(asking(image), 'refused', image);
    assert.equal(asking('b.example:5000/a:1', { allowedProxyImages: ['b.example:5000/a'] }), 'injected');
    assert.equal(asking('b.example:5000/a:1', { allowedProxyImages: ['b.example:5000/a:1'] }), 'injected');
    assert.equal(asking('b.example:5000/a:2', { allowedProxyImages: ['b.example:5000/a:1'] }), 'refused');
    assert.equal(asking('b.example:6000/a', { allowedProxyImages: ['b.example'] }), 'refused');
  });
});

describe('a pod of a size that nobody could run', () => {
  const refused: Readonly<Record<string, unknown>> = {
    'with-a-million-containers': { spec: { containers: Array(1_000_000).fill(0) } },
    'with-501-ports': { spec: { containers: [{ name: 'app', ports: Array(501).fill({ containerPort: 80 }) }] } },
    'with-too-many-values': { spec: { containers: Array(500).fill({ name: 'app', args: Array(200).fill('x') }) } },
    'with-many-levels': { spec: { containers: [{ name: 'app', more: JSON.parse(`${'['.repeat(10_000)}${']'.repeat(10_000)}`) }] } },
  };
  for (const [name, pod] of Object.entries(refused))
    test(`${name}-is-refused-before-anything-is-checked`, () => assert.match(reasonOf(inject(pod)), /no pod that could be checked/));

  test('just-below-is-injected', () => {
    const ports = Array.from({ length: 500 }, (_, at) => ({ containerPort: 1000 + at }));
    assert.equal(
      inject({ spec: { containers: [{ name: 'app', ports, env: Array(500).fill({ name: 'A', value: 'b' }) }] } }).kind,
      'injected',
    );
  });
});
