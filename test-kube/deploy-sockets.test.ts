// Pods that reach for the agents' sockets, before a real API server: what the injector writes is accepted, and everything else that would get hold of them is refused.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { scriptArguments } from '../src/commands/iptables.ts';
import { parseInjectorConfig } from '../src/injector/config.ts';
import { injectPod } from '../src/injector/inject-pod.ts';
import { at, documentsOf, find, render, SYSTEM } from './support/chart.ts';
import { InstalledChart, pod, until } from './support/installed-chart.ts';

const SOCKETS = { name: 'sockets', hostPath: { path: '/run/handfast', type: 'Directory' } };
let chart: InstalledChart;

before(async () => {
  chart = await InstalledChart.start();
  await chart.namespace('foo');
  // A policy holds a moment after it is there.
  const outright = pod({ volumes: [{ name: 'host', hostPath: { path: '/' } }] }, 'foo');
  await until('the socket policy', async () => (await chart.refusal(outright)) !== '');
});

after(async () => {
  await chart?.[Symbol.asyncDispose]();
});

const PROXY = {
  name: 'handfast-proxy',
  image: 'handfast:1',
  securityContext: { runAsUser: 1337, allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
  volumeMounts: [{ name: 'sockets', mountPath: '/run/handfast', readOnly: true }],
};
const proxy = (changes: object) => ({ containers: [{ ...PROXY, ...changes }], volumes: [SOCKETS] });
const mounted = (changes: object) => proxy({ volumeMounts: [{ name: 'sockets', mountPath: '/run/handfast', readOnly: true, ...changes }] });
const through = (path: string, type = 'Directory') => ({ containers: [PROXY], volumes: [{ name: 'sockets', hostPath: { path, type } }] });
const app = (more: object) => ({ name: 'app', image: 'app:1', ...more });
const writable = { volumeMounts: [{ name: 'sockets', mountPath: '/run/handfast' }] };

for (const [what, spec] of [
  ['what the injector writes', proxy({})],
  [
    'its twin among the init containers',
    { containers: [app({})], initContainers: [{ ...PROXY, restartPolicy: 'Always' }], volumes: [SOCKETS] },
  ],
  ['a slash more', through('/run/handfast/')],
  [
    'another directory of the node, writable',
    { containers: [app(writable)], volumes: [{ name: 'sockets', hostPath: { path: '/run/handfaster' } }] },
  ],
  [
    'another directory that has the name',
    { containers: [app(writable)], volumes: [{ name: 'sockets', hostPath: { path: '/data/run/handfast' } }] },
  ],
  [
    '/proc as a whole, as monitoring mounts it',
    { containers: [app(writable)], volumes: [{ name: 'sockets', hostPath: { path: '/proc' } }] },
  ],
] as const)
  test(`allowed: ${what}`, async () => assert.equal(await chart.refusal(pod(spec, 'foo')), ''));

for (const [what, spec, words] of [
  [
    'the classic malicious pod: the sockets, writable',
    { containers: [app(writable)], volumes: [SOCKETS] },
    /by the injected container handfast-proxy alone/,
  ],
  ['it, by the name of the sidecar', mounted({ readOnly: false }), /readOnly: true/],
  ['it, saying nothing of readOnly', proxy({ volumeMounts: [{ name: 'sockets', mountPath: '/run/handfast' }] }), /readOnly: true/],
  [
    'a second mount that is writable',
    proxy({ volumeMounts: [...PROXY.volumeMounts, { name: 'sockets', mountPath: '/mnt' }] }),
    /readOnly: true/,
  ],
  [
    'read-only, in another container',
    { containers: [app({ volumeMounts: PROXY.volumeMounts })], volumes: [SOCKETS] },
    /handfast-proxy alone/,
  ],
  [
    'an init container that replaces the socket',
    { containers: [PROXY], initContainers: [{ ...app(writable), name: 'first' }], volumes: [SOCKETS] },
    /handfast-proxy alone/,
  ],
  ['a subPath', mounted({ subPath: 'agent.sock' }), /without subPath/],
  ['a subPathExpr', mounted({ subPathExpr: 'agent.sock' }), /without subPath/],
  ['mounts that come in later', mounted({ mountPropagation: 'HostToContainer' }), /mountPropagation/],
  ['the parent', through('/run'), /reach the sockets/],
  ['the root of the node', through('/'), /reach the sockets/],
  ['the socket itself', through('/run/handfast/agent.sock', 'Socket'), /reach the sockets/],
  [
    'a file in its place',
    { containers: [app({})], volumes: [{ name: 'sockets', hostPath: { path: '/run/handfast/agent.sock', type: 'FileOrCreate' } }] },
    /reach the sockets/,
  ],
  ['the directory, made where it is missing', through('/run/handfast', 'DirectoryOrCreate'), /reach the sockets/],
  [
    'slashes more, writable',
    { containers: [app(writable)], volumes: [{ name: 'sockets', hostPath: { path: '//run///handfast//' } }] },
    /reach|handfast-proxy alone/,
  ],
  ['dots', through('/run/./handfast/./agent.sock'), /reach the sockets/],
  ['two dots', through('/run/x/../handfast'), /must not contain '\.\.'/],
  ['the link of /var/run', through('/var/run'), /reach the sockets/],
  [
    'the link, writable',
    { containers: [app(writable)], volumes: [{ name: 'sockets', hostPath: { path: '/var/run/handfast' } }] },
    /reach|handfast-proxy alone/,
  ],
  ["another process's root", through('/proc/1/root/run/handfast'), /reach the sockets/],
  ['root', proxy({ securityContext: { ...PROXY.securityContext, runAsUser: 0 } }), /user 1337/],
  ['privileged', proxy({ securityContext: { runAsUser: 1337, privileged: true } }), /user 1337/],
  [
    'CAP_SYS_ADMIN, which mounts anew',
    proxy({ securityContext: { ...PROXY.securityContext, capabilities: { drop: ['ALL'], add: ['SYS_ADMIN'] } } }),
    /no capabilities/,
  ],
  [
    'no securityContext',
    { containers: [{ name: PROXY.name, image: 'a:1', volumeMounts: PROXY.volumeMounts }], volumes: [SOCKETS] },
    /user 1337/,
  ],
] as const)
  test(`refused: ${what}`, async () => assert.match(await chart.refusal(pod(spec, 'foo')), words));

test('refused in a Deployment too, where its pods are made; allowed to the system’s own', async () => {
  const spec = { containers: [app(writable)], volumes: [SOCKETS] };
  assert.equal(await chart.refusal(pod(spec, 'kube-system')), '');
  assert.equal(await chart.refusal(pod(spec, SYSTEM)), '');
  await chart.cluster.apply(
    JSON.stringify({
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'thief', namespace: 'foo' },
      spec: { selector: { matchLabels: { app: 'thief' } }, template: { metadata: { labels: { app: 'thief' } }, spec } },
    }),
  );
  const said = 'jsonpath={.status.conditions[?(@.type=="ReplicaFailure")].message}';
  await until('the refusal', async () =>
    /handfast-proxy alone/.test((await chart.cluster.kubectl(['get', 'deployment', 'thief', '-n', 'foo', '-o', said])).stdout),
  );
  await chart.cluster.kubectl(['delete', 'deployment', 'thief', '-n', 'foo']);
});

test('an ephemeral container of an injected pod may not mount the sockets; one that does not is allowed', async () => {
  await chart.cluster.apply(JSON.stringify(pod({ containers: [PROXY], volumes: [SOCKETS] }, 'foo', { name: 'debugged' })));
  const debug = (name: string, more: object) =>
    chart.cluster.kubectl([
      'patch',
      'pod',
      'debugged',
      '-n',
      'foo',
      '--subresource=ephemeralcontainers',
      '-p',
      JSON.stringify({ spec: { ephemeralContainers: [{ name, image: 'a:1', ...more }] } }),
    ]);
  assert.match((await debug('thief', { volumeMounts: PROXY.volumeMounts })).stderr, /ephemeral container may not mount/);
  const allowed = await debug('honest', {});
  assert.equal(allowed.code, 0, allowed.stderr);
  await chart.cluster.kubectl(['delete', 'pod', 'debugged', '-n', 'foo', '--grace-period=0', '--force']);
});

for (const kind of ['native', 'classic'] as const)
  test(`a pod as the injector of this very chart makes it (${kind}) is accepted`, async () => {
    const rendered = documentsOf(await render([`sidecar.kind=${kind}`], { home: chart.cluster.dir }));
    const text = String(at(find(rendered, 'ConfigMap', 'handfast-injector'), 'data', 'config.yaml'));
    const config = parseInjectorConfig({ text, name: 'config.yaml' });
    const injected = injectPod({
      pod: pod({}, 'foo'),
      namespace: 'foo',
      namespaceLabels: { 'istio-injection': 'enabled' },
      config,
      captureArguments: scriptArguments,
    });
    assert.ok(injected.kind === 'injected', JSON.stringify(injected));
    assert.equal(await chart.refusal(injected.pod), '');
  });

test('the capability is what it takes to see the network namespace of a caller who is another user, and the only one', async () => {
  const capabilities = at(
    find(chart.objects, 'DaemonSet', 'handfast-agent'),
    'spec',
    'template',
    'spec',
    'containers',
    0,
    'securityContext',
    'capabilities',
  );
  assert.deepEqual(capabilities, { drop: ['ALL'], add: ['SYS_PTRACE'] });
  const run = promisify(execFile);
  const look = async (bounds: string) => {
    const script = `const { spawn } = require('node:child_process');
      const other = spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => 0, 1000)'], { uid: 1337, gid: 1337, stdio: ['ignore', 'pipe', 'ignore'] });
      other.stdout.once('data', () => {
        const { status } = require('node:child_process').spawnSync('setpriv', ['--bounding-set=${bounds}', '--inh-caps=-all', process.execPath, '-e', "require('node:fs').statSync('/proc/" + other.pid + "/ns/net')"]);
        console.log(status);
        other.kill();
      });`;
    return (await run(process.execPath, ['-e', script])).stdout.trim();
  };
  assert.equal(await look('-all'), '1');
  assert.equal(await look('-all,+sys_ptrace'), '0');
});
