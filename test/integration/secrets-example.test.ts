// examples/secrets as its documentation has it: the files are taken, and the application has each version, confirms it, and hears that it was taken back.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { it } from 'node:test';
import { ControlPlane } from '../support/control-plane.ts';
import { SecretSidecar, SecretsDir } from '../support/secrets.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

const example = (name: string) => readFileSync(new URL(`../../examples/secrets/${name}`, import.meta.url), 'utf8');

it('a-version-whose-receipt-was-refused-is-used-and-confirmed-again', async () => {
  const { followSecret } = await import(new URL('../../examples/secrets/secrets.mjs', import.meta.url).href);
  const ending = new AbortController();
  const asked: string[] = [];
  const body = JSON.stringify({ current: '1', data: {} });
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    const isReceipt = request.method === 'POST';
    const isSecond = asked.filter((one) => one.startsWith('POST')).length > 1;
    request.resume();
    if (isReceipt) response.writeHead(isSecond ? 204 : 503).end();
    else if (request.url?.includes('after=') === true) ending.abort();
    else response.end(body);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    let used = 0;
    const use = async () => void used++;
    const { port } = server.address() as AddressInfo;
    await followSecret({ name: 'bar/db', port, use, signal: ending.signal });
    assert.equal(used, 2);
    assert.deepEqual(asked.at(-1), 'GET /v1/secrets/bar/db?after=1');
  } finally {
    server.closeAllConnections();
    server.close();
  }
});

it('each-version-is-used-and-confirmed-and-the-end-is-heard', async () => {
  const { followSecret } = await import(new URL('../../examples/secrets/secrets.mjs', import.meta.url).href);
  const plane = await ControlPlane.create(new RecordingLog().log);
  const ending = new AbortController();
  let sidecar: SecretSidecar | undefined;
  try {
    const secrets = await SecretsDir.create(join(plane.dir, 'secrets'));
    await secrets.write('db.yaml', example('db.yaml').replace('current: "2"', 'current: "1"'));
    await secrets.write('policy.yaml', example('policy.yaml'));
    await plane.start({ control: { secrets: { from: { folder: secrets.path } } } });
    sidecar = await SecretSidecar.open(plane, 'httpbin', { namespace: 'bar', pod: 'bar/httpbin' });
    const used: unknown[] = [];
    const use = async (secret: { version: string; data: Record<string, Buffer> } | undefined) => {
      used.push(secret === undefined ? 'gone' : [secret.version, String(secret.data.password)]);
    };
    const following = followSecret({ name: 'bar/db', port: sidecar.port, use, signal: ending.signal });
    await eventually(() => used.length === 1);
    await secrets.write('db.yaml', example('db.yaml'));
    await eventually(() => used.length === 2);
    const holders = async () =>
      Object(await plane.ask('control', 'POST', '/secrets', {})).secrets[0].holders as { version: string; confirmed: number }[];
    await eventually(async () => (await holders()).filter(({ confirmed }) => confirmed > 0).length === 2);
    await secrets.remove('db.yaml');
    await eventually(() => used.length === 3);
    assert.deepEqual(used, [['1', 'change-me'], ['2', 'change-me-too'], 'gone']);
    ending.abort();
    await following;
  } finally {
    ending.abort();
    await sidecar?.[Symbol.asyncDispose]();
    await plane[Symbol.asyncDispose]();
  }
});
