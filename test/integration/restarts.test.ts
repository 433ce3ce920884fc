// CA, agent and control as processes of their own, killed and started again in any order under load: the data path does not notice, rotation
// goes on, and nothing that was issued is forgotten.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { createLocalToken, openLocalTokenKey } from '../../src/ca/local-token.ts';
import { AUDIENCE } from '../support/control-plane.ts';
import { Role } from '../support/handfast.ts';
import { type MeshedPair, startMeshedPair } from '../support/meshed-pair.ts';
import type { RunningSidecar } from '../support/sidecar-harness.ts';

type Part = 'ca' | 'control' | 'agent';
// Its children are killed, maybe while they write their coverage (test/support/uncovered.ts).
delete process.env.NODE_V8_COVERAGE;

const LISTENING = { ca: 'CA listening', control: 'control listening', agent: 'agent listening' } as const;

/** The three roles with their sockets in one directory. */
class Processes implements AsyncDisposable {
  readonly dir: string;
  readonly #roles = new Map<Part, Role>();

  constructor(dir: string) {
    this.dir = dir;
  }

  address(name: string): string {
    return `unix:${join(this.dir, `${name}.sock`)}`;
  }

  async token(serviceAccount: string): Promise<string> {
    const key = await openLocalTokenKey(join(this.dir, 'ca'));
    return createLocalToken({ namespace: 'foo', serviceAccount, audience: AUDIENCE, ttlS: 600, key, now: Date.now() });
  }

  async start(part: Part): Promise<Role> {
    const at = (name: string) => join(this.dir, name);
    const sockets = ['--socket', at(`${part}.sock`), '--operator-socket', at(`${part}-operator.sock`)];
    const flags = {
      ca: ['--state', at('ca'), '--svid-ttl', '20s'],
      control: ['--config', at('config')],
      agent: [
        '--ca',
        this.address('ca'),
        '--control',
        this.address('control'),
        '--workload-socket',
        at('workload.sock'),
        '--rotate-every',
        '400ms',
      ],
    }[part];
    const role = new Role(part, ...sockets, ...flags);
    this.#roles.set(part, role);
    await role.said(LISTENING[part]);
    return role;
  }

  role(part: Part): Role | undefined {
    return this.#roles.get(part);
  }

  async kill(part: Part): Promise<void> {
    const child = this.#roles.get(part)?.child;
    if (child === undefined) return;
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
    this.#roles.delete(part);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const role of this.#roles.values()) await role.stop();
  }
}

let processes: Processes;
let pair: MeshedPair;
let client: RunningSidecar;
let server: RunningSidecar;

before(async () => {
  const dir = await mkdtemp(join(tmpdir(), 'hf-kill-'));
  await mkdir(join(dir, 'config'));
  await writeFile(join(dir, 'config/mesh.yaml'), 'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {}\n');
  processes = new Processes(dir);
  await processes.start('control');
  await processes.start('ca');
  await processes.start('agent');
});

after(async () => {
  await processes[Symbol.asyncDispose]();
  await rm(processes.dir, { recursive: true });
});

beforeEach(async () => {
  pair = await startMeshedPair(processes, { server: { protocol: 'delta' } });
  ({ client, server } = pair);
});

afterEach(async () => {
  await pair[Symbol.asyncDispose]();
});

/** Requests one after the other until `stop`; what came back wrong. */
function load(): { requests(): number; stop(): Promise<string[]> } {
  const failures: string[] = [];
  let running = true;
  let requests = 0;
  const going = (async () => {
    while (running) {
      const { text, error } = await pair.ask();
      if (text !== 'hello') failures.push(error ?? `"${text}"`);
      requests++;
    }
  })();
  return {
    requests: () => requests,
    stop: async () => {
      running = false;
      await going;
      return failures;
    },
  };
}

/** Until both sidecars have been given a new certificate. */
async function rotated(): Promise<void> {
  await Promise.all(
    [client, server].map(({ records, identity }) => {
      const serial = identity.current?.svid.serial;
      return records.find(
        (record) => record.msg === 'identity in force' && record.serial !== serial && record.serial === identity.current?.svid.serial,
      );
    }),
  );
}

async function someRequests(running: { requests(): number }): Promise<void> {
  const enough = running.requests() + 30;
  while (running.requests() < enough) await new Promise((resolve) => setImmediate(resolve));
}

describe('kill -9 and start again, under load', () => {
  const orders: readonly (readonly Part[])[] = [['ca'], ['agent'], ['ca', 'agent'], ['agent', 'control', 'ca']];
  for (const order of orders) {
    it(`${order.join('-then-')}-no-request-fails-and-rotation-goes-on`, async () => {
      const running = load();
      for (const part of order) {
        await processes.kill(part);
        await someRequests(running);
      }
      for (const part of order) await processes.start(part);
      await rotated();
      await someRequests(running);
      assert.deepEqual(await running.stop(), []);
    });
  }

  it('the-next-agents-socket-replaces-the-old-one-without-a-gap', async () => {
    const running = load();
    let dialling = true;
    const refused: string[] = [];
    let dials = 0;
    const dialler = (async () => {
      while (dialling) {
        const socket = connect(join(processes.dir, 'agent.sock'));
        await new Promise<void>((resolve) => {
          socket.once('connect', () => resolve());
          socket.once('error', (error) => {
            refused.push(error.message);
            resolve();
          });
        });
        socket.destroy();
        dials++;
      }
    })();
    const old = processes.role('agent');
    await processes.start('agent');
    assert.equal(await old?.stop(), 0);
    await rotated();
    await someRequests(running);
    dialling = false;
    await dialler;
    assert.deepEqual(refused, []);
    assert.ok(dials > 100, `${dials} dials`);
    assert.deepEqual(await running.stop(), []);
  });

  it('every-certificate-seen-is-in-the-ledger-once-and-no-key-is-on-disk', async () => {
    const serials = [client, server].flatMap(({ records }) => records.records.filter((record) => record.msg === 'identity in force'));
    const lines = (await readFile(join(processes.dir, 'ca/ledger.jsonl'), 'utf8')).trim().split('\n');
    const ledger = lines.map((line): string => JSON.parse(line).serial);
    assert.equal(new Set(ledger).size, ledger.length);
    for (const { serial } of serials) assert.ok(ledger.includes(String(serial)), `${serial} is not in the ledger`);
    const files = (await readdir(processes.dir, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
    const holding: string[] = [];
    for (const entry of files) {
      if ((await readFile(join(entry.parentPath, entry.name), 'utf8')).includes('PRIVATE KEY')) holding.push(entry.name);
    }
    assert.deepEqual(holding.sort(), ['intermediate.pem', 'jwt-keys.json', 'root.pem', 'token-signing.pem']);
  });
});
