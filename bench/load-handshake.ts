// Full mTLS handshakes, one echoed byte each. Run in a pod with Options as JSON; prints a RawLoad.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, createSecureContext, type TLSSocket } from 'node:tls';
import { type Credentials, SERVER_NAME } from './certificates.ts';
import { cpuUs } from './cpu.ts';
import type { RawLoad } from './load.ts';

interface Options {
  readonly host: string;
  readonly port: number;
  readonly credentials: Credentials;
  readonly connections: number;
  readonly seconds: number;
  /** The proxies, whose CPU is read at the beginning and at the end. */
  readonly pids: readonly number[];
}

const options = JSON.parse(process.argv[2] ?? '{}') as Options;
const OPERATION_TIMEOUT_MS = 10_000;
/** What is down is not hammered. */
const MAX_FAILURES_IN_A_ROW = 20;

const secureContext = createSecureContext({
  ca: readFileSync(options.credentials.root),
  cert: readFileSync(options.credentials.chain),
  key: readFileSync(options.credentials.key),
  // The same for every peer: TLS 1.3 on X25519.
  minVersion: 'TLSv1.3',
  ecdhCurve: 'X25519',
});

/** Resolves with the microseconds for connect, handshake and one byte there and back, when the connection is closed again. */
async function handshake(): Promise<number> {
  const startedAt = performance.now();
  // Without `session`: every handshake is a full one.
  const socket = connect({
    host: options.host,
    port: options.port,
    secureContext,
    ALPNProtocols: ['istio'],
    servername: SERVER_NAME,
    // The chain is verified; who the server is, is the same for all and not what is measured.
    checkServerIdentity: () => undefined,
  });
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
