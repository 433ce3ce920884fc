// The load, as the rounds see it: started in the client's pod, bounded in time, and counted together with the CPU that it cost the proxies.

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Credentials } from './certificates.ts';
import { cpuUs } from './cpu.ts';
import type { Deployment } from './deployment.ts';
import { checkout, script, type Testbed } from './testbed.ts';

export interface LoadResult {
  readonly operations: number;
  readonly failures: number;
  /** What the first failure was. */
  readonly failure?: string;
  readonly seconds: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** CPU of all of the deployment's proxies in that time. */
  readonly proxyCpuUs: number;
}

/** What `load-*.ts` print: every latency, in microseconds, so that several processes can be put together. */
export interface RawLoad extends Pick<LoadResult, 'failures' | 'failure' | 'seconds' | 'proxyCpuUs'> {
  readonly latenciesUs: readonly number[];
}

export type Load = (deployment: Deployment, seconds: number) => Promise<LoadResult>;

export const generators = ['node', 'wrk'] as const;
export type Generator = (typeof generators)[number];

/** More processes than this load no proxy any better: it has one core. */
const MAX_PROCESSES = 4;
const GRACE_MS = 30_000;
/** Between opening connections and the first request on them: longer than 64 handshakes take. */
const GATE_MS = 2_000;

/** Full mTLS handshakes, from one process for each of the load's cores. */
export function handshakeLoad(testbed: Testbed, options: { credentials: Credentials; connections: number }): Load {
  const processes = Math.min(MAX_PROCESSES, testbed.cores.load.length, options.connections);
  return async ({ client, target, proxies }, seconds) => {
    const connections = Math.ceil(options.connections / processes);
    const pids = proxies.map(({ pid }) => pid);
    const command = script('load-handshake.ts', { ...target, credentials: options.credentials, connections, seconds, pids });
    const outputs = await Promise.all(Array.from({ length: processes }, () => testbed.run(client, command, seconds * 1000 + GRACE_MS)));
    return together(outputs.map((output) => JSON.parse(output) as RawLoad));
  };
}

/** HTTP requests over `connections` connections, or a new one for each request. */
export function httpLoad(testbed: Testbed, options: { generator: Generator; connections: number; close: boolean }): Load {
  const path = options.close ? '/close' : '/';
  return async (deployment, seconds) => {
    const { client, proxies, target } = deployment;
    const { generator, connections } = options;
    if (generator === 'node') {
      const command = script('load-http.ts', { ...target, path, connections, seconds, pids: proxies.map(({ pid }) => pid) });
      return together([JSON.parse(await testbed.run(client, command, seconds * 1000 + GRACE_MS)) as RawLoad]);
    }
    const url = `http://${target.host}:${target.port}${path}`;
    return wrk(testbed, deployment, { url, connections, seconds, gateMs: options.close ? undefined : GATE_MS });
  };
}

async function wrk(
  testbed: Testbed,
  { client, proxies }: Deployment,
  of: { url: string; connections: number; seconds: number; gateMs: number | undefined },
): Promise<LoadResult> {
  const { url, connections, seconds, gateMs = 0 } = of;
  const threads = Math.min(MAX_PROCESSES, testbed.cores.load.length, connections);
  const open = Math.floor(connections / threads);
  const environment = gateMs === 0 ? [] : ['env', `GATE_MS=${gateMs}`, `OPEN=${open}`];
  const settings = ['-t', String(threads), '-c', String(connections), '-d', `${seconds + gateMs / 1000}s`, '--timeout', '10s'];
  const summary = ['-s', join(checkout, 'bench/wrk-summary.lua')];
  const pids = proxies.map(({ pid }) => pid);
  const output = testbed.run(client, [...environment, 'wrk', ...settings, ...summary, url], seconds * 1000 + GRACE_MS);
  // Read in the middle of the second half of the gate: handshakes are done, requests have not begun.
  const cpu = sleep(gateMs * 0.75).then(() => cpuUs(pids));
  const [text, before] = await Promise.all([output, cpu]);
  const counted = JSON.parse(text.trim().split('\n').at(-1) ?? '') as Omit<LoadResult, 'proxyCpuUs'>;
  return { ...counted, proxyCpuUs: cpuUs(pids) - before };
}

function together(parts: readonly RawLoad[]): LoadResult {
  const latencies = parts.flatMap((part) => part.latenciesUs).sort((a, b) => a - b);
  const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0;
  const failure = parts.find((part) => part.failure !== undefined)?.failure;
  return {
    operations: latencies.length,
    failures: parts.reduce((sum, part) => sum + part.failures, 0),
    ...(failure === undefined ? {} : { failure }),
    seconds: Math.max(...parts.map((part) => part.seconds)),
    p50Us: at(0.5),
    p99Us: at(0.99),
    // They run at the same time and see the same proxies: the widest view has everything in it.
    proxyCpuUs: Math.max(...parts.map((part) => part.proxyCpuUs)),
  };
}
