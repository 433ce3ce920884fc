// WebSockets: a request that becomes a connection. Read and judged as every other; http-proxy asks the application, and what comes of it is handled here: its own way leaves connections open whose other end is gone, and says heads anew.

import type { ClientRequest, IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { messageOf } from '../errors.ts';
import { splice } from '../net/splice.ts';
import { answerWith, headOf } from './answer-with.ts';
import type { Caller } from './caller.ts';
import { admit, type ExchangeSettings, refusalText } from './exchange.ts';
import { exchangeRecord } from './exchange-record.ts';
import { endToEnd, fieldsOf, tokensOf } from './message-headers.ts';
import type { Outgoing } from './request-forwarding.ts';

/** What a caller may say ahead of the application's answer, which nobody has reason to. */
const MAX_EARLY_BYTES = 64 * 1024;
/** Of an answer that is no WebSocket: it is gathered, so that nobody takes a part for the whole. */
const MAX_ANSWER_BYTES = 1024 * 1024;

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

/** What the application answered. */
type Answer =
  | { readonly kind: 'switched'; readonly answer: IncomingMessage; readonly application: Duplex; readonly head: Buffer }
  | { readonly kind: 'other'; readonly answer: IncomingMessage; readonly body: Buffer };

/** The question to the application, as http-proxy puts it. */
export class Upgrading {
  readonly #outgoing: Outgoing;
  readonly #answered = Promise.withResolvers<Answer>();
  #asking: ClientRequest | undefined;
  /** Its body may still be on its way. */
  #hasAnswer = false;

  constructor(outgoing: Outgoing) {
    this.#outgoing = outgoing;
    this.#answered.promise.catch(() => undefined);
  }

  /** Rejects where there is none. */
  get answered(): Promise<Answer> {
    return this.#answered.promise;
  }

  /** http-proxy is about to send: it is said anew what goes, and what comes back is ours. */
  ask(asking: ClientRequest): void {
    this.#asking = asking;
    try {
      for (const name of asking.getHeaderNames()) asking.removeHeader(name);
      asking.path = this.#outgoing.target;
      for (const [name, value] of this.#outgoing.fields) if (name.toLowerCase() !== 'trailer') asking.appendHeader(name, value);
      asking.setHeader('connection', 'Upgrade');
      asking.setHeader('upgrade', 'websocket');
    } catch (error) {
      this.giveUp(error);
      return;
    }
    asking.once('close', () => {
      if (!this.#hasAnswer) this.giveUp(new Error('the application gave no answer'));
    });
    // Once http-proxy has put its own listeners there.
    process.nextTick(() => {
      for (const event of ['error', 'response', 'upgrade']) asking.removeAllListeners(event);
      asking.on('error', (error) => this.giveUp(error));
      asking.on('upgrade', (answer: IncomingMessage, application: Duplex, head: Buffer) => this.#onUpgrade({ answer, application, head }));
      asking.on('response', (answer: IncomingMessage) => {
        this.#hasAnswer = true;
        gather(answer).then(
          (body) => this.#answered.resolve({ kind: 'other', answer, body }),
          (error: unknown) => this.giveUp(error),
        );
      });
    });
  }

  /** It is not waited for any longer. */
  giveUp(error: unknown): void {
    this.#answered.reject(error);
    this.#asking?.destroy();
  }

  #onUpgrade(of: { answer: IncomingMessage; application: Duplex; head: Buffer }): void {
    of.application.on('error', () => undefined);
    if (tokensOf(fieldsOf(of.answer.rawHeaders), 'upgrade').join() === 'websocket') this.#answered.resolve({ kind: 'switched', ...of });
    else {
      of.application.destroy();
      this.giveUp(new Error('the application changed to something else than a WebSocket'));
    }
  }
}

/** Rejects for one that is broken off, or too long. */
async function gather(answer: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer) {
    const bytes = Buffer.from(chunk);
    size += bytes.length;
    if (size > MAX_ANSWER_BYTES) throw new Error(`an answer of more than ${MAX_ANSWER_BYTES} bytes to a WebSocket`);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks);
}

/** Resolves when the connection is over. Never rejects. */
export async function upgrade(
  message: IncomingMessage,
  of: { socket: Duplex; early: EarlyWords; caller: Caller; settings: ExchangeSettings; forward: (upgrading: Upgrading) => void },
): Promise<void> {
  const { socket, early, caller, settings } = of;
  const { connection, agent } = caller;
  const end = exchangeRecord(caller, settings.now);
  caller.takeNoMore();
  const admission = admit(message, { ...of, expectsContinue: false });
  const { request } = admission;
  if ('refused' in admission) {
    early.stop();
    const { status, code, reason, fields } = admission.refused;
    const text = refusalText(code);
    answerWith(socket, {
      status,
      fields: [['content-type', 'text/plain'], ...fields],
      body: Buffer.from(text),
    });
    end({ request, status, decision: 'refused', outcome: 'answered', code, reason });
    return;
  }
  const upgrading = new Upgrading(admission.outgoing);
  early.onLost = (reason) => upgrading.giveUp(new Error(reason));
  of.forward(upgrading);
  let answer: Answer;
  try {
    answer = await upgrading.answered;
  } catch (error) {
    early.stop();
    const isThere = agent.hasConnected;
    const status = isThere ? 502 : 503;
    if (early.isLost) connection.abort();
    else answerWith(socket, { status });
    const why = { code: isThere ? 'APPLICATION_FAILED' : 'DIAL_FAILED', reason: messageOf(error) } as const;
    if (early.isLost) end({ request, status: undefined, decision: 'allowed', outcome: 'aborted' });
    else end({ request, status, decision: 'failed', outcome: 'answered', ...why });
    return;
  }
  const words = early.stop();
  const { statusCode = 502, statusMessage = '', rawHeaders } = answer.answer;
  const fields = endToEnd(fieldsOf(rawHeaders)).filter(([name]) => !OURS.has(name.toLowerCase()));
  if (answer.kind === 'other') {
    answerWith(socket, { status: statusCode, text: statusMessage, fields, body: answer.body });
    end({ request, status: statusCode, decision: 'allowed', outcome: 'answered' });
    return;
  }
  caller.isUpgraded = true;
  const { application, head } = answer;
  socket.write(
    headOf({ status: 101, text: statusMessage, fields: [...fields, ['connection', 'Upgrade'], ['upgrade', 'websocket']] }),
    'latin1',
  );
  if (head.length > 0) socket.write(head);
  if (words.length > 0) application.write(words);
  await splice({
    downstream: socket,
    upstream: application,
    abort: () => connection.abort(),
    halfCloseTimeoutMs: settings.halfCloseTimeoutMs,
  });
  end({ request, status: 101, decision: 'allowed', outcome: 'upgraded' });
}

/** How the body is framed is said anew. */
const OURS: ReadonlySet<string> = new Set(['content-length', 'trailer']);

/** What a caller says before the application has answered. It is read on, from the moment Node has let go of the connection, so that we hear when the caller goes. */
export class EarlyWords {
  /** The caller is gone. */
  isLost = false;
  onLost: (reason: string) => void;
  readonly #socket: Duplex;
  readonly #words: Buffer[] = [];
  readonly #onData: (bytes: Buffer) => void;
  readonly #onGone: () => void;
  #bytes = 0;

  constructor(socket: Duplex, head: Buffer, onLost: (reason: string) => void) {
    this.#socket = socket;
    this.onLost = onLost;
    const lost = (reason: string) => {
      this.isLost = true;
      this.onLost(reason);
    };
    this.#onData = (bytes) => {
      this.#words.push(Buffer.from(bytes));
      this.#bytes += bytes.length;
      if (this.#bytes > MAX_EARLY_BYTES) lost(`more than ${MAX_EARLY_BYTES} bytes before the answer`);
    };
    this.#onGone = () => lost('the caller went away');
    if (head.length > 0) this.#onData(head);
    if (socket.readableEnded || socket.destroyed) queueMicrotask(this.#onGone);
    socket.on('data', this.#onData);
    socket.once('end', this.#onGone);
    socket.once('close', this.#onGone);
    socket.resume();
  }

  /** What was said. */
  stop(): Buffer {
    this.#socket.pause();
    this.#socket.removeListener('data', this.#onData);
    this.#socket.removeListener('end', this.#onGone);
    this.#socket.removeListener('close', this.#onGone);
    return Buffer.concat(this.#words);
  }
}
