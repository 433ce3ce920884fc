// Downloads without an end on several connections. Run in a pod with Options as JSON; prints a LoadResult without latencies.

import { connect, type Socket } from 'node:net';
import { cpuUs } from './cpu.ts';
import { sum } from './statistics.ts';

interface Options {
  readonly host: string;
  readonly port: number;
  readonly streams: number;
  readonly seconds: number;
  /** The proxies, whose CPU is read at the beginning and at the end. */
  readonly pids: readonly number[];
}

const options = JSON.parse(process.argv[2] ?? '{}') as Options;
const MB = 1_000_000;
const FIRST_BYTES_TIMEOUT_MS = 10_000;

let failures = 0;
let failure: string | undefined;

/** Reads into one buffer over and over: the client's own work is not to be the limit. */
function download(): { socket: Socket; begun: Promise<void>; read: () => number } {
  let own = 0;
  let begin: () => void = () => undefined;
  const begun = new Promise<void>((resolve) => {
    begin = resolve;
  });
  const onread = {
    buffer: Buffer.alloc(1024 * 1024),
    callback: (length: number) => {
      own += length;
      begin();
      return true;
    },
  };
  const socket = connect({ host: options.host, port: options.port, onread });
  const fail = (reason: string) => {
    failures++;
    failure ??= reason;
    begin();
  };
  socket.once('error', (error) => fail(error.message));
  socket.once('end', () => fail('the stream ended'));
  socket.write('GET /bulk HTTP/1.1\r\nhost: bench\r\n\r\n');
  return { socket, begun, read: () => own };
}

const streams = Array.from({ length: options.streams }, download);
const timer = setTimeout(() => {
  throw new Error(`not every stream had begun within ${FIRST_BYTES_TIMEOUT_MS} ms`);
}, FIRST_BYTES_TIMEOUT_MS);
await Promise.all(streams.map(({ begun }) => begun));
clearTimeout(timer);

const before = streams.map(({ read }) => read());
const cpu = cpuUs(options.pids);
const startedAt = performance.now();
await new Promise((resolve) => setTimeout(resolve, options.seconds * 1000));
const seconds = (performance.now() - startedAt) / 1000;
const proxyCpuUs = cpuUs(options.pids) - cpu;
const bytes = streams.map(({ read }, index) => read() - (before[index] ?? 0));
for (const own of bytes) {
  if (own > 0) continue;
  failures++;
  failure ??= 'a stream stood still';
}
const result = {
  operations: sum(bytes) / MB,
  failures,
  ...(failure === undefined ? {} : { failure }),
  seconds,
  proxyCpuUs,
};
for (const { socket } of streams)
  socket
    .removeAllListeners('error')
    .on('error', () => undefined)
    .destroy();
process.stdout.write(JSON.stringify(result));
