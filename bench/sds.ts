// `npm run bench -- sds`: thousands of SDS streams on one agent through a change of bundle and a rotation of every certificate. Agent and CA are
// processes of their own; time, CPU and memory are theirs.

import { randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type ClientDuplexStream, credentials } from '@grpc/grpc-js';
import { createLocalToken, DEFAULT_AUDIENCE, openLocalTokenKey } from '../src/ca/local-token.ts';
import { typeUrls } from '../src/discovery/type-urls.ts';
import { Secret } from '../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient } from '../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { bearerMetadata } from '../src/wire/grpc.ts';
import { askOperator } from '../src/wire/operator-client.ts';
import { Role } from '../test/support/handfast.ts';
import { cpuUs, rssMb } from './cpu.ts';
import { describeMachine } from './machine.ts';

const STREAMS_PER_CONNECTION = 100;
const DEADLINE_MS = 300_000;

interface Phase {
  readonly name: string;
  /** From the order to the last stream's answer, milliseconds. */
  readonly lastAckMs: number;
  readonly agentCpuMs: number;
  readonly caCpuMs: number;
  readonly agentRssMb: number;
  readonly caRssMb: number;
}

/** Counts what the streams have been given, and answers each response. */
class Fleet {
  readonly #seen: Map<string, number>[] = [];
  #wake: (() => void) | undefined;
  #over = false;

  open(agent: string, token: string, client: SecretDiscoveryServiceClient): void {
    const seen = new Map<string, number>();
    this.#seen.push(seen);
    const call: ClientDuplexStream<DiscoveryRequest, DiscoveryResponse> = client.streamSecrets(bearerMetadata(token));
    const request = (responseNonce: string): DiscoveryRequest => ({
      versionInfo: '',
      node: { id: randomUUID(), cluster: agent, metadata: undefined, userAgentName: 'bench', userAgentVersion: '' },
      resourceNames: ['default', 'ROOTCA'],
      typeUrl: typeUrls.secret,
      responseNonce,
      errorDetail: undefined,
    });
    call.on('error', (error) => {
      if (!this.#over) throw error;
    });
    call.on('data', (response: DiscoveryResponse) => {
      for (const { value } of response.resources) {
        const { name } = Secret.decode(value);
        seen.set(name, (seen.get(name) ?? 0) + 1);
      }
      call.write(request(response.nonce));
      this.#wake?.();
    });
    call.write(request(''));
  }

  /** From now on streams may end. */
  end(): void {
    this.#over = true;
  }

  /** Resolves when every stream has been given the secret this often. */
  async given(name: string, times: number): Promise<void> {
    const deadline = Date.now() + DEADLINE_MS;
    while (this.#seen.some((seen) => (seen.get(name) ?? 0) < times)) {
      if (Date.now() > deadline) throw new Error(`not every stream was given ${name} within ${DEADLINE_MS / 1000} s`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 1_000);
        this.#wake = () => {
          clearTimeout(timer);
          setImmediate(resolve);
        };
      });
    }
  }
}

export async function benchSds(argv: readonly string[]): Promise<void> {
  const { values } = parseArgs({ args: [...argv], options: { streams: { type: 'string', default: '2000' }, json: { type: 'string' } } });
  const streams = Number(values.streams);
  if (!Number.isInteger(streams) || streams < 1 || streams > 4_096)
    throw new Error(`--streams ${values.streams}: a whole number from 1 to 4,096 is accepted: an agent allows one user no more`);
  const dir = await mkdtemp(join(tmpdir(), 'hf-bench-sds-'));
  const at = (name: string) => join(dir, name);
  const sockets = (name: string) => [
    '--socket',
    at(`${name}.sock`),
    '--operator-socket',
    at(`${name}-operator.sock`),
    '--log-level',
    'warn',
  ];
  await mkdir(at('config'));
  await writeFile(at('config/mesh.yaml'), 'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {}\n');
  const phases: Phase[] = [];
  const fleet = new Fleet();
  const ca = new Role('ca', '--state', at('ca'), ...sockets('ca'));
  const control = new Role('control', '--config', at('config'), ...sockets('control'));
  const order = (path: string) => askOperator(at('ca-operator.sock'), { method: 'POST', path, body: {} });
  try {
    await eventually(() => askOperator(at('ca-operator.sock'), { method: 'GET', path: '/status' }));
    const gateways = ['--ca', `unix:${at('ca.sock')}`, '--control', `unix:${at('control.sock')}`, '--workload-socket', at('workload.sock')];
    const agent = new Role('agent', ...gateways, ...sockets('agent'));
    try {
      await eventually(() => askOperator(at('agent-operator.sock'), { method: 'GET', path: '/status' }));
      const key = await openLocalTokenKey(at('ca'));
      const measure = async (name: string, act: () => Promise<unknown>, done: () => Promise<void>) => {
        const before = [usage(agent), usage(ca)] as const;
        const start = performance.now();
        await act();
        await done();
        const lastAckMs = Math.round(performance.now() - start);
        const [agentAfter, caAfter] = [usage(agent), usage(ca)];
        phases.push({
          name,
          lastAckMs,
          agentCpuMs: agentAfter.cpuMs - before[0].cpuMs,
          caCpuMs: caAfter.cpuMs - before[1].cpuMs,
          agentRssMb: agentAfter.rssMb,
          caRssMb: caAfter.rssMb,
        });
        process.stderr.write(`  ${name}: ${lastAckMs} ms\n`);
      };
      let client: SecretDiscoveryServiceClient | undefined;
      const open = async () => {
        for (let i = 0; i < streams; i++) {
          if (i % STREAMS_PER_CONNECTION === 0)
            client = new SecretDiscoveryServiceClient(`unix:${at('agent.sock')}`, credentials.createInsecure(), {
              'grpc.use_local_subchannel_pool': 1,
            });
          const of = { namespace: 'bench', serviceAccount: `w${i}`, audience: DEFAULT_AUDIENCE, ttlS: 3_600, key, now: Date.now() };
          if (client !== undefined) fleet.open(dir, createLocalToken(of), client);
          if (i % 50 === 49) await new Promise((resolve) => setImmediate(resolve));
        }
      };
      await measure('first certificates', open, () => fleet.given('default', 1));
      await measure(
        'a new trust bundle',
        () => order('/root/prepare'),
        async () => {
          await fleet.given('ROOTCA', 2);
          await eventually(async () => {
            const { rotation } = Object(await askOperator(at('ca-operator.sock'), { method: 'GET', path: '/status' }));
            if (rotation.behind.length > 0) throw new Error('not confirmed yet');
          });
        },
      );
      await measure(
        'a new certificate for everybody (spread over 5 s)',
        () => order('/root/activate'),
        () => fleet.given('default', 2),
      );
    } finally {
      fleet.end();
      await agent.stop();
    }
  } finally {
    await control.stop();
    await ca.stop();
    await rm(dir, { recursive: true });
  }
  const machine = describeMachine();
  process.stdout.write(`${streams} SDS streams on one agent; ${machine.cpu}, ${machine.cores} cores\n\n`);
  for (const { name, lastAckMs, agentCpuMs, caCpuMs, agentRssMb, caRssMb } of phases) {
    process.stdout.write(
      `${name}\n  last ACK after ${lastAckMs} ms; agent ${agentCpuMs} ms CPU (${perStream(agentCpuMs, streams)} us a stream), ${agentRssMb} MB; CA ${caCpuMs} ms CPU, ${caRssMb} MB\n`,
    );
  }
  if (values.json !== undefined) await writeFile(values.json, `${JSON.stringify({ machine, streams, phases }, undefined, 2)}\n`);
  process.exit(0);
}

function perStream(ms: number, streams: number): number {
  return Math.round((ms * 1000) / streams);
}

function usage({ child }: Role): { cpuMs: number; rssMb: number } {
  const pids = child.pid === undefined ? [] : [child.pid];
  return { cpuMs: cpuUs(pids) / 1000, rssMb: Math.round(rssMb(pids)) };
}

async function eventually(ask: () => Promise<unknown>): Promise<void> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    try {
      await ask();
      return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
