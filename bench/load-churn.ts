// Connections that come and go at a steady rate, in every way that connections end. Run in a pod with Options as JSON; prints what became of them.

import { connect, type Socket } from 'node:net';
import { connect as connectTls, createSecureContext } from 'node:tls';
import type { Credentials } from './certificates.ts';
import { clientTls, type Group } from './client-tls.ts';

export interface ChurnOptions {
  readonly host: string;
  readonly port: number;
  /** With them it is a mutual handshake each, from outside the mesh; without, whatever an application says, through its sidecar. */
  readonly credentials?: Credentials;
  readonly group: Group;
  readonly perSecond: number;
  readonly seconds: number;
}

export interface ChurnResult {
  readonly done: number;
  readonly failures: number;
  /** What the first failure was. */
  readonly failure?: string;
}

const options = JSON.parse(process.argv[2] ?? '{}') as ChurnOptions;
const TICK_MS = 20;
const TIMEOUT_MS = 10_000;
/** What is slow is not hammered. */
const MAX_OPEN = 200;

const tls = options.credentials === undefined ? undefined : clientTls(options.credentials, { group: options.group });
const secureContext = tls === undefined ? undefined : createSecureContext(tls);
const REQUEST = 'GET /close HTTP/1.1\r\nhost: a\r\n\r\n';

/** A TLSSocket cannot be reset: the TCP socket beneath it can. */
function dial(): { socket: Socket; reset: () => void } {
  const raw = connect({ host: options.host, port: options.port });
  if (tls === undefined) return { socket: raw, reset: () => raw.resetAndDestroy() };
  const socket = connectTls({ ...tls, socket: raw, secureContext });
  return { socket, reset: () => raw.resetAndDestroy() };
}

/** Of twenty: one is reset after its request, one in the middle of a transfer, one ends without a word, one ends its half first; the others ask and are answered. */
function one(number: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const { socket, reset } = dial();
  const timer = setTimeout(() => socket.destroy(new Error('no answer in time')), TIMEOUT_MS);
  const kind = number % 20;
  const quits = kind < 3;
  let heard = '';
  socket.on('error', (error) => (quits ? resolve() : reject(error)));
  socket.on('close', () => {
    clearTimeout(timer);
    if (quits || heard.includes('Hello')) resolve();
    else reject(new Error('closed without an answer'));
  });
  socket.on('data', (bytes: Buffer) => {
    if (heard.length < 1_000) heard += bytes.toString('latin1');
    if (kind === 1) reset();
  });
  socket.once(tls === undefined ? 'connect' : 'secureConnect', () => {
    if (kind === 2) socket.end();
    else if (kind === 3) socket.end(REQUEST);
    else socket.write(kind === 1 ? REQUEST.replace('/close', '/bulk') : REQUEST);
    if (kind === 0) setImmediate(reset);
  });
  return promise;
}

let [started, open, done, failures] = [0, 0, 0, 0];
let failure: string | undefined;
const startedAt = performance.now();
const timer = setInterval(() => {
  const elapsedMs = performance.now() - startedAt;
  if (elapsedMs >= options.seconds * 1000) {
    clearInterval(timer);
    return;
  }
  for (const due = (elapsedMs / 1000) * options.perSecond; started < due && open < MAX_OPEN; started++) {
    open++;
    one(started)
      .catch((error: unknown) => {
        failures++;
        failure ??= error instanceof Error ? error.message : String(error);
      })
      .finally(() => {
        open--;
        done++;
      });
  }
}, TICK_MS);
process.once('beforeExit', () => {
  const result: ChurnResult = { done, failures, ...(failure === undefined ? {} : { failure }) };
  process.stdout.write(JSON.stringify(result));
});
