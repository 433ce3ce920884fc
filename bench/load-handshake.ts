// Full mTLS handshakes, one echoed byte each. Run in a pod with Options as JSON; prints a RawLoad.

import { once } from 'node:events';
import { connect, createSecureContext, type TLSSocket } from 'node:tls';
import type { Credentials } from './certificates.ts';
import { clientTls, type Group } from './client-tls.ts';
import { cpuUs } from './cpu.ts';
import type { RawLoad } from './load.ts';

interface Options {
  readonly host: string;
  readonly port: number;
  readonly credentials: Credentials;
  readonly group: Group;
  readonly connections: number;
  readonly seconds: number;
  /** The proxies, whose CPU is read at the beginning and at the end. */
  readonly pids: readonly number[];
}

const options = JSON.parse(process.argv[2] ?? '{}') as Options;
const OPERATION_TIMEOUT_MS = 10_000;
/** What is down is not hammered. */
const MAX_FAILURES_IN_A_ROW = 20;

const tls = clientTls(options.credentials, { group: options.group });
const secureContext = createSecureContext(tls);

/** Resolves with the microseconds for connect, handshake and one byte there and back, when the connection is closed again. */
async function handshake(): Promise<number> {
  const startedAt = performance.now();
  // Without `session`: every handshake is a full one.
  const socket = connect({ ...tls, host: options.host, port: options.port, secureContext });
  const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), OPERATION_TIMEOUT_MS);
  try {
    socket.setNoDelay(true);
    socket.write('x');
    await firstByte(socket);
    if (socket.isSessionReused()) throw new Error('the handshake was not a full one');
    const latencyUs = Math.round((performance.now() - startedAt) * 1000);
    socket.end();
    if (!socket.closed) await once(socket, 'close');
    return latencyUs;
  } finally {
    clearTimeout(timer);
    socket.destroy();
  }
}

function firstByte(socket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.once('data', () => resolve());
    socket.on('error', reject);
    socket.once('close', () => reject(new Error('closed without an answer')));
  });
}

const latenciesUs: number[] = [];
let failures = 0;
let failure: string | undefined;

async function worker(deadline: number): Promise<void> {
  for (let failed = 0; failed < MAX_FAILURES_IN_A_ROW && performance.now() < deadline; ) {
    try {
      latenciesUs.push(await handshake());
      failed = 0;
    } catch (error) {
      failed++;
      failures++;
      failure ??= error instanceof Error ? error.message : String(error);
    }
  }
}

const cpu = cpuUs(options.pids);
const startedAt = performance.now();
await Promise.all(Array.from({ length: options.connections }, () => worker(startedAt + options.seconds * 1000)));
const seconds = (performance.now() - startedAt) / 1000;
const raw: RawLoad = {
  latenciesUs,
  failures,
  ...(failure === undefined ? {} : { failure }),
  seconds,
  proxyCpuUs: cpuUs(options.pids) - cpu,
};
process.stdout.write(JSON.stringify(raw));
