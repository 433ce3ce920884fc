// Opens connections in batches, has one byte echoed on each, and holds them until it is ended. Run in a pod with Options as JSON; prints an
// IdleLoad when all are open.

import { connect, type Socket } from 'node:net';
import { percentile } from './statistics.ts';

interface Options {
  readonly host: string;
  readonly port: number;
  readonly connections: number;
}

export interface IdleLoad {
  /** Connections that are open. */
  readonly operations: number;
  readonly failures: number;
  readonly failure?: string;
  readonly seconds: number;
  readonly p50Us: number | null;
  readonly p99Us: number | null;
}

const options = JSON.parse(process.argv[2] ?? '{}') as Options;
const BATCH = 100;
const ECHO_TIMEOUT_MS = 30_000;
/** A proxy that takes no more is not asked for thousands. */
const MAX_FAILURES = 100;

const latenciesUs: number[] = [];
const held = new Set<Socket>();
let failures = 0;
let failure: string | undefined;

/** Resolves when the byte is back, or when it is clear that it will not be. */
function open(): Promise<void> {
  const startedAt = performance.now();
  const socket = connect({ host: options.host, port: options.port, noDelay: true });
  return new Promise((resolve) => {
    const fail = (reason: string) => {
      clearTimeout(timer);
      failures++;
      failure ??= reason;
      held.delete(socket);
      socket.destroy();
      resolve();
    };
    const timer = setTimeout(() => fail('no answer in time'), ECHO_TIMEOUT_MS);
    socket.on('error', (error) => fail(error.message));
    socket.once('end', () => fail('closed by the proxy'));
    socket.once('data', () => {
      clearTimeout(timer);
      latenciesUs.push(Math.round((performance.now() - startedAt) * 1000));
      held.add(socket);
      resolve();
    });
    socket.write('x');
  });
}

const startedAt = performance.now();
for (let opened = 0; opened < options.connections && failures < MAX_FAILURES; opened += BATCH) {
  await Promise.all(Array.from({ length: Math.min(BATCH, options.connections - opened) }, open));
}
const seconds = (performance.now() - startedAt) / 1000;
latenciesUs.sort((a, b) => a - b);
const result: IdleLoad = {
  operations: held.size,
  failures,
  ...(failure === undefined ? {} : { failure }),
  seconds,
  p50Us: percentile(latenciesUs, 0.5),
  p99Us: percentile(latenciesUs, 0.99),
};
process.stdout.write(`${JSON.stringify(result)}\n`);
