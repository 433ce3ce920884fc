// WebSockets: a request that becomes a connection. Read and judged as every other; http-proxy asks the application and joins both ends, and what it leaves open or says wrongly is mended here.

import { type ClientRequest, type IncomingMessage, STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { messageOf } from '../errors.ts';
import type { Caller } from './caller.ts';
import { admit, type ExchangeSettings, refusalText } from './exchange.ts';
import type { RequestEnd } from './http-connection.ts';
import { endToEnd, fieldsOf, type HeaderField, tokensOf } from './message-headers.ts';
import type { Outgoing } from './request-forwarding.ts';

/** Only these leave HTTP/1.1. Everything else that a caller would like to change to stays a plain request, without the wish: h2c would go past whoever reads requests. */
export function isWebSocket(message: IncomingMessage): boolean {
  const fields = fieldsOf(message.rawHeaders);
  return (
    message.method === 'GET' &&
    message.httpVersion === '1.1' &&
    tokensOf(fields, 'upgrade').join() === 'websocket' &&
    tokensOf(fields, 'connection').includes('upgrade') &&
    message.headers['content-length'] === undefined &&
    message.headers['transfer-encoding'] === undefined
  );
}

/** What http-proxy is to ask, and how it went. */
export class Upgrading {
  readonly #socket: Duplex;
  readonly #outgoing: Outgoing;
  readonly #halfCloseTimeoutMs: number;
  #status: number | undefined;
  #failure: string | undefined;

  constructor(socket: Duplex, { outgoing, halfCloseTimeoutMs }: { outgoing: Outgoing; halfCloseTimeoutMs: number }) {
    this.#socket = socket;
    this.#outgoing = outgoing;
    this.#halfCloseTimeoutMs = halfCloseTimeoutMs;
  }

  get status(): number | undefined {
    return this.#status;
  }

  get failure(): string | undefined {
    return this.#failure;
  }

  ask(asking: ClientRequest): void {
    const socket = this.#socket;
    for (const name of asking.getHeaderNames()) asking.removeHeader(name);
    asking.path = this.#outgoing.target;
    for (const [name, value] of this.#outgoing.fields) asking.appendHeader(name, value);
    asking.setHeader('connection', 'Upgrade');
    asking.setHeader('upgrade', 'websocket');
    // It looks after neither end when the other is gone without a word.
    socket.once('close', () => asking.destroy());
    const answered = whenEnded(socket, () => socket.destroy());
    asking.prependListener('upgrade', (_answer: IncomingMessage, application: Duplex) => {
      answered();
      this.#status = 101;
      socket.once('close', () => application.destroy());
      application.once('close', () => {
        if (!socket.writableEnded) socket.destroy();
      });
      // Once http-proxy has joined both: whoever listens before hears what came with the head, instead of the other end.
      process.nextTick(() => cutHalfOpen({ socket, application, afterMs: this.#halfCloseTimeoutMs }));
    });
    const onResponse = (answer: IncomingMessage) => {
      answered();
      this.#status = answer.statusCode;
      const fields = endToEnd(fieldsOf(answer.rawHeaders));
      socket.write(headOf({ status: answer.statusCode ?? 502, text: answer.statusMessage ?? '', fields }));
      answer.pipe(socket);
    };
    // http-proxy, whose turn is next, would pass the head on with the framing of a body that it has unframed.
    process.nextTick(() => asking.removeAllListeners('response').on('response', onResponse));
  }

  fail(error: unknown): void {
    this.#failure ??= messageOf(error);
    if (this.#status !== undefined || this.#socket.destroyed || this.#socket.writableEnded) return;
    this.#status = 503;
    this.#socket.end(headOf({ status: 503, text: '', fields: [['content-length', '0']] }));
  }
}

/** Hears that the other end has ended, without taking what it said before; until the returned function is called. */
function whenEnded(socket: Duplex, onEnd: () => void): () => void {
  const look = () => {
    if (socket.readableLength === 0) socket.read();
  };
  socket.on('readable', look);
  socket.once('end', onEnd);
  return () => {
    socket.removeListener('readable', look);
    socket.removeListener('end', onEnd);
  };
}

/** One end has ended and the other says nothing: as on every other connection, not for ever. */
function cutHalfOpen({ socket, application, afterMs }: { socket: Duplex; application: Duplex; afterMs: number }): void {
  let timer: NodeJS.Timeout | undefined;
  const begin = () => {
    timer ??= setTimeout(() => socket.destroy(), afterMs);
  };
  for (const side of [socket, application]) {
    side.once('end', begin);
    side.on('data', () => timer?.refresh());
  }
  socket.once('close', () => clearTimeout(timer));
}

/** Resolves when the connection is over. Never rejects. */
export async function upgrade(
  message: IncomingMessage,
  of: { socket: Duplex; caller: Caller; settings: ExchangeSettings; forward: (upgrading: Upgrading) => void },
): Promise<void> {
  const { socket, caller, settings } = of;
  const { connection, agent } = caller;
  const startedAt = settings.now();
  const { bytesWritten, bytesRead } = agent;
  const end = (ending: Omit<RequestEnd, 'bytesToApplication' | 'bytesFromApplication' | 'durationMs'>) =>
    connection.ended({
      ...ending,
      bytesToApplication: agent.bytesWritten - bytesWritten,
      bytesFromApplication: agent.bytesRead - bytesRead,
      durationMs: settings.now() - startedAt,
    });
  const { promise: closed, resolve } = Promise.withResolvers<void>();
  if (socket.closed) resolve();
  else socket.once('close', () => resolve());

  const admission = admit(message, { ...of, expectsContinue: false });
  const { request } = admission;
  if ('refused' in admission) {
    const { status, code, reason, fields } = admission.refused;
    const body = refusalText(code);
    const own: HeaderField[] = [
      ['content-type', 'text/plain'],
      ['content-length', String(body.length)],
    ];
    socket.end(headOf({ status, text: STATUS_CODES[status] ?? '', fields: [...own, ...fields] }) + body);
    end({ request, status, decision: 'refused', outcome: 'answered', code, reason });
    return;
  }
  const upgrading = new Upgrading(socket, { outgoing: admission.outgoing, halfCloseTimeoutMs: settings.halfCloseTimeoutMs });
  of.forward(upgrading);
  await closed;
  const { status, failure } = upgrading;
  const outcome = status === 101 ? 'upgraded' : status === undefined ? 'aborted' : 'answered';
  if (failure === undefined || status === 101) end({ request, status, decision: 'allowed', outcome });
  else
    end({ request, status, decision: 'failed', outcome, code: agent.hasConnected ? 'APPLICATION_FAILED' : 'DIAL_FAILED', reason: failure });
}

/** The head of an answer on a connection that ends with it. */
function headOf({ status, text, fields }: { status: number; text: string; fields: readonly HeaderField[] }): string {
  const lines = [`HTTP/1.1 ${status} ${text}`, ...fields.map(([name, value]) => `${name}: ${value}`), 'connection: close'];
  return `${lines.join('\r\n')}\r\n\r\n`;
}
