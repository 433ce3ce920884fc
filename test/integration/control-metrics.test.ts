// What Prometheus is told of control: by a real scrape, before and after something is refused.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { ControlPlane } from '../support/control-plane.ts';
import { freePort } from '../support/free-port.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

let plane: ControlPlane;
let port: number;

before(async () => {
  plane = await ControlPlane.create(new RecordingLog().log);
  await writeFile(
    join(plane.configDir, 'pod.yaml'),
    'apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: foo}\nspec: {containers: [{name: a}]}\n',
  );
  port = await freePort();
  await plane.start({ control: { metrics: { host: '127.0.0.1', port } } });
});
after(() => plane[Symbol.asyncDispose]());

const scrape = (path = '/metrics') => fetch(`http://127.0.0.1:${port}${path}`);

async function until(what: string, line: RegExp): Promise<string> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const text = await (await scrape()).text();
    if (line.test(text)) return text;
    assert.ok(Date.now() < deadline, `${what}: ${text}`);
    await delay(50);
  }
}

test('who leads, what is in force and who is served are told; nobody is named', async () => {
  const text = await until('the agent', /^handfast_control_connected 1$/m);
  assert.match(text, /^handfast_control_leads 1$/m);
  assert.match(text, /^handfast_control_objects\{kind="pods"\} 1$/m);
  assert.match(text, /^handfast_control_objects\{kind="peerAuthentications"\} 0$/m);
  assert.match(text, /^handfast_control_objects_refused 0$/m);
  assert.match(text, /^handfast_control_rollouts\{phase="rolled back"\} 0$/m);
  assert.doesNotMatch(text, /foo/);
  assert.equal((await scrape()).headers.get('content-type'), 'text/plain; version=0.0.4; charset=utf-8');
});

test('what is refused is counted, and not any more when it is mended', async () => {
  const file = join(plane.configDir, 'broken.yaml');
  await writeFile(file, 'kind: PeerAuthentication\n');
  await until('the refusal', /^handfast_control_objects_refused 1$/m);
  await writeFile(file, '');
  await until('its end', /^handfast_control_objects_refused 0$/m);
});

test('nothing else is served there', async () => {
  for (const path of ['/', '/metrics/x', '/ledger']) assert.equal((await scrape(path)).status, 404);
  assert.equal((await fetch(`http://127.0.0.1:${port}/metrics`, { method: 'POST' })).status, 404);
});

test('a port that is taken ends the start, and says what for', async () => {
  const other = await ControlPlane.create(new RecordingLog().log);
  await assert.rejects(other.startControl({ metrics: { host: '127.0.0.1', port } }), /cannot listen for metrics/);
  await other[Symbol.asyncDispose]();
});
