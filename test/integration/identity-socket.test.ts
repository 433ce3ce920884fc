// The identity API on the agent's socket: what the kernel knows of the process says who asks, with real agent and CA.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { ControlPlane } from '../support/control-plane.ts';
import { handfast } from '../support/handfast.ts';
import { GUARD } from '../support/identity-api.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

const A = 'spiffe://cluster.local/ns/foo/sa/a';
const B = 'spiffe://cluster.local/ns/foo/sa/b';
const UID = process.getuid?.() ?? 0;

let records: RecordingLog;
let plane: ControlPlane;

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
});
afterEach(() => plane[Symbol.asyncDispose]());

type Entry = readonly [id: string, uid: number, token?: string];

async function register(...workloads: readonly Entry[]): Promise<void> {
  const entries = await Promise.all(
    workloads.map(async ([id, uid, token]) => {
      const name = id.split('/').at(-1) ?? '';
      const tokenFile = join(plane.dir, `${name}.token`);
      await writeFile(tokenFile, token ?? (await plane.token(name)));
      return `  - { spiffeId: "${id}", tokenFile: ${tokenFile}, selectors: { uid: ${uid} } }\n`;
    }),
  );
  await writeFile(join(plane.dir, 'workloads.yaml'), `workloads:${entries.length === 0 ? ' []' : ''}\n${entries.join('')}`);
}

/** The CA runs already: it has the key that tokens are made with. */
async function start(...workloads: readonly Entry[]): Promise<void> {
  await plane.startControl();
  await plane.startCa();
  await register(...workloads);
  await plane.startAgent({ workloadsFile: join(plane.dir, 'workloads.yaml'), identitySocket: plane.socket('identity') });
}

function ask(
  path: string,
  body?: object,
  headers: Readonly<Record<string, string>> = GUARD,
): Promise<{ status: number; body: Record<string, unknown> }> {
  return new Promise((resolve, reject) => {
    const options = { socketPath: plane.socket('identity'), path, method: body === undefined ? 'GET' : 'POST', headers, agent: false };
    const asked = request(options, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += String(chunk);
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: JSON.parse(text) }));
    });
    asked.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body));
  });
}
const issue = (headers?: Readonly<Record<string, string>>) => ask('/v1/jwt-svid', { audience: ['b'] }, headers);

describe('a registered process', () => {
  it('has-tokens-of-its-workload-and-verdicts-on-others', async () => {
    await start([A, UID]);
    await eventually(async () => (await ask('/v1/jwks')).status === 200);
    const { status, body } = await issue();
    assert.deepEqual([status, body.spiffeId], [200, A]);
    assert.equal((await issue()).body.token, body.token);
    assert.equal((await ask('/v1/jwt-svid/validate', { token: body.token, audience: 'b' })).body.spiffeId, A);
    assert.equal((await ask('/v1/jwt-svid/validate', { token: body.token, audience: 'c' })).body.reason, 'AUDIENCE_MISMATCH');
    await plane.ask('ca', 'POST', '/revocations', { spiffeId: A });
    await eventually(
      async () => (await ask('/v1/jwt-svid/validate', { token: body.token, audience: 'b' })).body.reason === 'IDENTITY_BLOCKED',
    );
    assert.equal((await issue()).body.code, 'IDENTITY_BLOCKED');
  });

  it('that-forwards-or-lacks-the-header-is-refused', async () => {
    await start([A, UID]);
    assert.equal((await issue({})).body.code, 'HEADER_MISSING');
    assert.equal((await issue({ ...GUARD, 'x-forwarded-for': '10.0.0.1' })).body.code, 'FORWARDED');
    assert.equal((await issue({ ...GUARD, origin: 'null' })).body.code, 'FROM_A_PAGE');
    assert.equal((await issue()).status, 200);
  });

  it('whose-token-proves-another-workload-gets-none', async () => {
    await plane.startControl();
    await plane.startCa();
    await register([A, UID, await plane.token('b')]);
    await plane.startAgent({ workloadsFile: join(plane.dir, 'workloads.yaml'), identitySocket: plane.socket('identity') });
    assert.equal((await issue()).body.code, 'NOT_ISSUED');
    await register([A, UID]);
    await eventually(async () => (await issue()).status === 200);
  });
});

describe('others', () => {
  it('a-process-that-matches-nothing-is-refused-until-it-does', async () => {
    await start([A, UID + 1]);
    for (const answer of [await issue(), await ask('/v1/jwks'), await ask('/v1/jwt-svid/validate', { token: 'x', audience: 'b' })])
      assert.deepEqual([answer.status, answer.body.code], [403, 'NOT_REGISTERED']);
    await register([A, UID]);
    await eventually(async () => (await issue()).status === 200);
  });

  it('one-of-several-workloads-is-nobody-here', async () => {
    await start([A, UID], [B, UID]);
    assert.deepEqual((await issue()).body.code, 'SEVERAL_IDENTITIES');
  });

  it('without-registrations-there-is-no-such-socket', async () => {
    const { code, stderr } = await handfast('agent', '--socket', plane.socket('x'), '--identity-socket', plane.socket('y'));
    assert.equal(code, 2);
    assert.match(stderr, /--identity-socket serves registered processes: give --workloads FILE too/);
  });
});
