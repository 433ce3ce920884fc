// `handfast proxy --workers 2` as a process: ready from a real agent, one report and one ledger for the pod, ended by SIGTERM.

import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { askOperator } from '../../src/wire/operator-client.ts';
import { handfast, Role } from '../support/handfast.ts';
import { closed, eventually } from '../support/workers-pair.ts';

const EXAMPLE = fileURLToPath(new URL('../../examples/config', import.meta.url));

let dir: string;
let up: Role;
const at = (name: string) => join(dir, name);

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-workers-'));
  up = new Role('up', '--config', EXAMPLE, '--state', at('ca'), '--run-dir', at('run'));
  await up.said('agent listening');
  const { stdout } = await handfast('token', 'create', '--namespace', 'bar', '--service-account', 'httpbin', '--state', at('ca'));
  await writeFile(at('token'), stdout);
});
after(async () => {
  await up.stop();
  await rm(dir, { recursive: true });
});

function startProxy(...more: string[]): Role {
  const ports = [
    '--inbound-port',
    '0',
    '--outbound-port',
    '0',
    '--tunnel-port',
    '0',
    '--readiness-port',
    '0',
    '--status-port=0',
    '--identity-port=0',
  ];
  const pod = ['--pod-name', 'httpbin', '--pod-namespace', 'bar'];
  return new Role('proxy', '--agent', `unix:${at('run/agent.sock')}`, '--token-file', at('token'), ...pod, ...ports, ...more);
}

async function ready(proxy: Role): Promise<{ inbound: number; readiness: number }> {
  const { ports } = await proxy.said('sidecar listening');
  const { inbound, readiness } = ports as { inbound: number; readiness: number };
  await eventually(async () => (await fetch(`http://127.0.0.1:${readiness}/healthz/ready`)).status === 200);
  return { inbound, readiness };
}

interface Run {
  readonly pod: string;
  readonly live: boolean;
  readonly entries: readonly { readonly code: string; readonly connections: number }[];
}

async function runs(): Promise<readonly Run[]> {
  const answer = await askOperator(at('run/control-operator.sock'), { method: 'GET', path: '/ledger' });
  return (answer as { instances: readonly Run[] }).instances;
}

describe('proxy --workers 2', () => {
  it('serves-by-both-and-keeps-one-ledger', async () => {
    await using proxy = startProxy('--workers', '2');
    const { inbound } = await ready(proxy);
    const threads = await readdir(`/proc/${proxy.child.pid}/task`);
    assert.ok(threads.length > 2);
    // Nobody redirected them: each is refused, and each is counted once.
    await Promise.all(
      Array.from({ length: 40 }, () => {
        const socket = connect(inbound, '127.0.0.1').on('error', () => undefined);
        return closed(socket.resume());
      }),
    );
    const counted = (all: readonly Run[]) => all.flatMap(({ entries }) => entries).reduce((sum, { connections }) => sum + connections, 0);
    await eventually(async () => counted(await runs()) === 40);
    assert.deepEqual(
      (await runs()).map(({ pod, live }) => [pod, live]),
      [['bar/httpbin', true]],
    );
    assert.equal(await proxy.stop(), 0);
  });
});
