// HTTP requests, each connection's next one as soon as the last is answered. Run in a pod with Options as JSON; prints a RawLoad.
// Connections that are kept alive are open before the measured time begins: handshakes are not in the cost of a request.

import { connect, type Socket } from 'node:net';
import { cpuUs } from './cpu.ts';
import type { RawLoad } from './load.ts';

interface Options {
  readonly host: string;
  readonly port: number;
  readonly path: string;
  readonly connections: number;
  readonly seconds: number;
  /** The proxies, whose CPU is read at the beginning and at the end. */
  readonly pids: readonly number[];
}

const options = JSON.parse(process.argv[2] ?? '{}') as Options;
const request = `GET ${options.path} HTTP/1.1\r\nhost: ${options.host}\r\n\r\n`;
const ANSWER_TIMEOUT_MS = 10_000;
/** What is down is not hammered. */
const MAX_FAILURES_IN_A_ROW = 20;

let latenciesUs: number[] = [];
let failures = 0;
let failure: string | undefined;

/** One user agent: one connection at a time, a new one when the server has closed the last. */
class Client {
  #socket: Socket | undefined;
  #sentAt = 0;
  #failed = 0;
  #deadline = 0;
  #finished: () => void = () => undefined;
  readonly #silence = setTimeout(() => this.#socket?.destroy(new Error('no answer in time')), ANSWER_TIMEOUT_MS);

  /** Resolves after the first answer past `deadline`, which leaves at least one. */
  run(deadline: number): Promise<void> {
    this.#deadline = deadline;
    return new Promise((resolve) => {
      this.#finished = resolve;
      this.#request();
    });
  }

  close(): void {
    clearTimeout(this.#silence);
    this.#socket?.removeAllListeners('close').destroy();
  }

  #request(): void {
    this.#silence.refresh();
    this.#sentAt = performance.now();
    this.#socket ??= this.#open();
    this.#socket.write(request);
  }

  #open(): Socket {
    const socket = connect({ host: options.host, port: options.port, noDelay: true });
    let answered = false;
    let reason = 'closed without an answer';
    socket.on('error', (error) => {
      reason = error.message;
    });
    socket.on('data', (chunk) => {
      // The answer is shorter than a segment and is sent in one.
      const answer = chunk.toString('latin1');
      if (!answer.startsWith('HTTP/1.1 200 ')) {
        socket.destroy(new Error(`the answer was ${answer.slice(0, 40)}`));
        return;
      }
      latenciesUs.push(Math.round((performance.now() - this.#sentAt) * 1000));
      this.#failed = 0;
      answered = answer.includes('\r\nconnection: close\r\n');
      if (!answered) this.#next();
    });
    socket.once('close', () => {
      this.#socket = undefined;
      if (!answered) {
        failures++;
        failure ??= reason;
        this.#failed++;
      }
      this.#next();
    });
    return socket;
  }

  #next(): void {
    if (performance.now() >= this.#deadline || this.#failed >= MAX_FAILURES_IN_A_ROW) this.#finished();
    else this.#request();
  }
}

const clients = Array.from({ length: options.connections }, () => new Client());
await Promise.all(clients.map((client) => client.run(0)));
latenciesUs = [];
const cpu = cpuUs(options.pids);
const startedAt = performance.now();
await Promise.all(clients.map((client) => client.run(startedAt + options.seconds * 1000)));
const seconds = (performance.now() - startedAt) / 1000;
const raw: RawLoad = {
  latenciesUs,
  failures,
  ...(failure === undefined ? {} : { failure }),
  seconds,
  proxyCpuUs: cpuUs(options.pids) - cpu,
};
for (const client of clients) client.close();
process.stdout.write(JSON.stringify(raw));
