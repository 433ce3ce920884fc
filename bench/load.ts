// The load, as the rounds see it: started in a pod, bounded in time, and counted together with the CPU that it cost the proxies.

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cpuUs } from './cpu.ts';
import type { Deployment } from './deployment.ts';
import { percentile, sum } from './statistics.ts';
import { checkout, script, type Testbed } from './testbed.ts';

export interface LoadResult {
  readonly operations: number;
  readonly failures: number;
  /** What the first failure was. */
  readonly failure?: string;
  readonly seconds: number;
  /** Null where an operation has no latency of its own (bulk). */
  readonly p50Us: number | null;
  readonly p99Us: number | null;
  /** CPU of all of the deployment's proxies in that time. */
  readonly proxyCpuUs: number;
  /** Idle connections: how many were held, and the memory of each proxy before them and for each of them. */
  readonly connections?: number;
  readonly rssBeforeMb?: readonly number[];
  readonly kbPerConnection?: readonly number[];
  /** Memory of each proxy, where it was read at a moment that matters; otherwise the rounds take the peak. */
  readonly rssEachMb?: readonly number[];
  /** How many TLS connections there were between the two proxies at the end. */
  readonly tlsConnections?: number;
}

/** What `load-handshake.ts` prints: every latency, in microseconds, so that several processes can be put together. */
export interface RawLoad extends Pick<LoadResult, 'failures' | 'failure' | 'seconds' | 'proxyCpuUs'> {
  readonly latenciesUs: readonly number[];
}

export type Load = (deployment: Deployment, seconds: number) => Promise<LoadResult>;

/** More processes than this load no proxy any better: it has one core. */
const MAX_PROCESSES = 4;
const GRACE_MS = 30_000;
/** Between opening connections and the first request on them: longer than the handshakes of all take. */
const GATE_MS = 2_000;
const GATE_PER_CONNECTION_MS = 6;
/** Concurrent handshakes, and concurrent requests on connections of their own. */
const CONCURRENT = 16;

/** Full mTLS handshakes against the serving proxy, from one process for each of the load's cores. */
export function handshakeLoad(testbed: Testbed): Load {
  const processes = Math.min(MAX_PROCESSES, testbed.cores.load.length, CONCURRENT);
  const connections = Math.ceil(CONCURRENT / processes);
  return async ({ site: { outsider, guarded, credentials, group }, pids }, seconds) => {
    const command = script('load-handshake.ts', { ...guarded, credentials, group, connections, seconds, pids });
    const outputs = await Promise.all(Array.from({ length: processes }, () => testbed.run(outsider, command, seconds * 1000 + GRACE_MS)));
    return together(outputs.map((output) => JSON.parse(output) as RawLoad));
  };
}

/** Bytes without an end through the pair, on so many connections. One operation is a MB. */
export function bulkLoad(testbed: Testbed, streams: number): Load {
  return async ({ site: { client, target }, pids }, seconds) => {
    const output = await testbed.run(client, script('load-bulk.ts', { ...target, streams, seconds, pids }), seconds * 1000 + GRACE_MS);
    return { ...(JSON.parse(output) as Omit<LoadResult, 'p50Us' | 'p99Us'>), p50Us: null, p99Us: null };
  };
}

/** HTTP by wrk: `always`, a new connection for each request; otherwise `connections` kept open, of which every n-th request may want a new one. */
export function httpLoad(testbed: Testbed, of: { connections: number; close: 'always' | 'never' | { every: number } }): Load {
  const always = of.close === 'always';
  const connections = always ? CONCURRENT : of.connections;
  // wrk takes whole seconds.
  const gateMs = always ? 0 : 1000 * Math.ceil((GATE_MS + Math.max(0, connections - 64) * GATE_PER_CONNECTION_MS) / 1000);
  const threads = Math.min(MAX_PROCESSES, testbed.cores.load.length, connections);
  const environment = [
    ...(gateMs === 0 ? [] : [`GATE_MS=${gateMs}`, `OPEN=${Math.floor(connections / threads)}`]),
    ...(typeof of.close === 'object' ? [`CLOSE_EVERY=${of.close.every}`] : []),
  ];
  const script = ['-s', join(checkout, 'bench/wrk-summary.lua')];
  return async ({ site: { client, target }, pids }, seconds) => {
    const settings = ['-t', String(threads), '-c', String(connections), '-d', `${seconds + gateMs / 1000}s`, '--timeout', '10s'];
    const url = `http://${target.host}:${target.port}${always ? '/close' : '/'}`;
    const output = testbed.run(
      client,
      ['env', ...environment, 'wrk', ...settings, ...script, url],
      (seconds + gateMs / 1000) * 1000 + GRACE_MS,
    );
    // Read in the last quarter of the gate: handshakes are done, requests have not begun.
    const cpu = sleep(gateMs * 0.8).then(() => cpuUs(pids));
    const [text, before] = await Promise.all([output, cpu]);
    const counted = JSON.parse(text.trim().split('\n').at(-1) ?? '') as Omit<LoadResult, 'proxyCpuUs'>;
    return { ...counted, proxyCpuUs: cpuUs(pids) - before };
  };
}

function together(parts: readonly RawLoad[]): LoadResult {
  const latencies = parts.flatMap((part) => part.latenciesUs).sort((a, b) => a - b);
  const failure = parts.find((part) => part.failure !== undefined)?.failure;
  return {
    operations: latencies.length,
    failures: sum(parts.map((part) => part.failures)),
    ...(failure === undefined ? {} : { failure }),
    seconds: Math.max(...parts.map((part) => part.seconds)),
    p50Us: percentile(latencies, 0.5),
    p99Us: percentile(latencies, 0.99),
    // They run at the same time and see the same proxies: the widest view has everything in it.
    proxyCpuUs: Math.max(...parts.map((part) => part.proxyCpuUs)),
  };
}
