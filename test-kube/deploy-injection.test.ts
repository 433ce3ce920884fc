// Whom the chart's webhook asks about, on a real API server; and every object of the demo in kind, which itself cannot run without Docker.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { SYSTEM } from './support/chart.ts';
import { InstalledChart, pod, until } from './support/installed-chart.ts';

const ROOT = new URL('../', import.meta.url);
let chart: InstalledChart;

before(async () => {
  chart = await InstalledChart.start(['crds.istio=true']);
});

after(async () => {
  await chart?.[Symbol.asyncDispose]();
});

for (const [namespace, labels, podLabel, asked] of [
  ['enabled', { 'istio-injection': 'enabled' }, undefined, true],
  ['enabled-ours', { 'handfast.io/injection': 'enabled' }, undefined, true],
  ['enabled-both', { 'istio-injection': 'enabled', 'handfast.io/injection': 'enabled' }, undefined, true],
  ['enabled-not-this', { 'istio-injection': 'enabled' }, 'false', false],
  ['mistyped', { 'istio-injection': 'enable' }, undefined, true],
  ['disabled', { 'istio-injection': 'disabled' }, undefined, false],
  ['disabled-but-pod', { 'istio-injection': 'disabled' }, 'true', false],
  ['disabled-by-one', { 'istio-injection': 'enabled', 'handfast.io/injection': 'disabled' }, undefined, false],
  ['unlabelled', {}, undefined, false],
  ['unlabelled-but-pod', {}, 'true', true],
  ['unlabelled-mistyped', {}, 'yes', true],
  ['unlabelled-out', {}, 'false', false],
] as const)
  test(`${asked ? 'asked about, and so refused while no injector answers' : 'not asked about'}: namespace ${namespace}`, async () => {
    await chart.namespace(namespace, labels);
    const words = await chart.refusal(
      pod({}, namespace, podLabel === undefined ? {} : { labels: { 'sidecar.istio.io/inject': podLabel } }),
    );
    if (asked) assert.match(words, /failed calling webhook "[a-z-]+\.injector\.handfast\.io"/);
    else assert.equal(words, '');
  });

test('the system’s namespaces are not asked about, whatever their pods say', async () => {
  for (const namespace of ['kube-system', SYSTEM])
    assert.equal(await chart.refusal(pod({}, namespace, { labels: { 'sidecar.istio.io/inject': 'true' } })), '');
});

test('every object of the kind demo applies, with labels that its scripts rely on', async () => {
  const folder = new URL('demo/kind/manifests/', ROOT);
  const files = await readdir(folder);
  const read = (file: string) => readFile(new URL(file, folder), 'utf8');
  const up = await readFile(new URL('demo/kind/up.sh', ROOT), 'utf8');
  await chart.cluster.apply(await read('namespaces.yaml'));
  for (const namespace of ['foo', 'bar', 'legacy'])
    for (const file of files.filter((name) => name !== 'namespaces.yaml')) {
      const { code, stderr } = await chart.cluster.kubectl(['apply', '--server-side', '-n', namespace, '-f', '-'], {
        input: await read(file),
      });
      assert.equal(code, 0, `${file}: ${stderr}`);
    }
  for (const file of files) assert.ok(up.includes(file.replace(/^(sleep|httpbin)\.yaml$/, '$application.yaml')), `${file} is used`);
  await until(
    'legacy’s pods',
    async () =>
      (await chart.cluster.kubectl(['get', 'pods', '-n', 'legacy', '-l', 'app=httpbin', '-o', 'name'])).stdout.trim().split('\n').length ===
      2,
  );
  for (const script of ['up.sh', 'down.sh']) await promisify(execFile)('sh', ['-n', new URL(`demo/kind/${script}`, ROOT).pathname]);
});
