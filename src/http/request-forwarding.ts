// One request on its way to the application and its answer on the way back, by http-proxy: which asks, streams the body and tells of errors. What it leaves open is closed here, and what it
// would change (paths, framing, repeated fields, trailers) goes on as it was judged.

import { type ClientRequest, type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { ErrorCode } from '../errors.ts';
import { messageOf } from '../errors.ts';
import type { ApplicationAgent } from './application-agent.ts';
import type { IncomingRequest } from './incoming-request.ts';
import { endToEnd, endToEndTrailers, fieldsOf, type HeaderField, plainName, tokensOf } from './message-headers.ts';

/** Why there is no whole answer. */
export interface ForwardingFailure {
  readonly code: ErrorCode;
  readonly reason: string;
}

/** What goes to the application. */
export interface Outgoing {
  readonly request: IncomingRequest;
  readonly target: string;
  /** All of them, but for framing. */
  readonly fields: readonly HeaderField[];
  /** Names that only we may say, as `plainName` has them: in no trailer either. */
  readonly reserved: ReadonlySet<string>;
}

export interface ForwardingOptions {
  readonly outgoing: Outgoing;
  readonly agent: ApplicationAgent;
  /** No further request is wanted on this connection. */
  readonly isLast: () => boolean;
  /** None will be taken any more. */
  readonly onLast: () => void;
  readonly abort: () => void;
}

export class RequestForwarding {
  readonly #message: IncomingMessage;
  readonly #response: ServerResponse;
  readonly #options: ForwardingOptions;
  #asking: ClientRequest | undefined;
  #continued = false;
  #answered = false;
  #failure: ForwardingFailure | undefined;
  /** Both the answer and the asking are over. */
  readonly over: Promise<void>;
  readonly #settle: () => void;

  constructor(message: IncomingMessage, response: ServerResponse, options: ForwardingOptions) {
    this.#message = message;
    this.#response = response;
    this.#options = options;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.over = promise;
    this.#settle = resolve;
    // http-proxy looks whether the caller sends, not whether it still listens: its own request to the application would stay open for ever.
    response.once('close', () => {
      if (!response.writableFinished || this.#failure !== undefined) this.#asking?.destroy();
      this.#settleIfOver();
    });
  }

  get failure(): ForwardingFailure | undefined {
    return this.#failure;
  }

  /** http-proxy has a connection, and nothing is written yet: it is said anew what goes. What Node will not send is a failure of this request. */
  ask(asking: ClientRequest): void {
    try {
      this.#ask(asking);
    } catch (error) {
      this.fail(error);
    }
  }

  #ask(asking: ClientRequest): void {
    this.#asking = asking;
    asking.once('close', () => {
      // Such as a switch of protocols that nobody asked for, which Node ends without an error.
      if (!this.#answered) this.fail(new Error('the application gave no answer that can be passed on'));
      this.#settleIfOver();
    });
    const { outgoing } = this.#options;
    // It would go out as http-proxy has put it together, which is not what was judged.
    if (asking.headersSent || this.#response.destroyed) {
      asking.destroy();
      return;
    }
    writeHead(asking, outgoing);
    asking.on('information', ({ statusCode }) => {
      if (statusCode === 102 && !this.#response.headersSent) this.#response.writeProcessing();
    });
    if (outgoing.request.expectsContinue) {
      asking.on('continue', () => {
        this.#continued = true;
        if (!this.#response.headersSent) this.#response.writeContinue();
      });
      // The head alone. `flushHeaders` would send it as UTF-8.
      asking.write('', 'latin1');
    }
    if (outgoing.request.framing !== 'chunked') return;
    // Before http-proxy's own listener, which ends the request.
    this.#message.prependOnceListener('end', () => {
      const trailers = endToEndTrailers(fieldsOf(this.#message.rawTrailers)).filter(([name]) => !outgoing.reserved.has(plainName(name)));
      if (!asking.writableEnded) addTrailers(asking, trailers);
    });
  }

  /** The head of the application's answer has come. */
  answer(answer: IncomingMessage): void {
    const response = this.#response;
    this.#answered = true;
    answer.once('error', (error) => this.fail(error));
    answer.once('close', () => {
      if (!answer.complete) this.fail(new Error('the application broke off its answer'));
    });
    const all = fieldsOf(answer.rawHeaders);
    // Node has trailers announced where there is a place for them alone.
    const isChunked =
      tokensOf(all, 'transfer-encoding').includes('chunked') && this.#message.httpVersion === '1.1' && this.#message.method !== 'HEAD';
    const fields = endToEnd(all).filter(([name]) => isChunked || name.toLowerCase() !== 'trailer');
    if (this.#endsConnection(answer, all)) {
      fields.push(['connection', 'close']);
      this.#options.onLast();
    }
    try {
      response.sendDate = false;
      response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? '', fields.flat());
    } catch (error) {
      this.fail(error);
      return;
    }
    answer.once('end', () => {
      if (isChunked && !response.writableEnded) addTrailers(response, endToEndTrailers(fieldsOf(answer.rawTrailers)));
    });
    answer.pipe(response);
  }

  /** Without an answer the caller gets one of ours; one that was begun is broken off, so that nobody takes it for whole. */
  fail(error: unknown): void {
    const response = this.#response;
    if (this.#failure !== undefined || response.writableFinished || response.destroyed) return;
    const dialled = this.#options.agent.hasConnected;
    this.#failure = { code: dialled ? 'APPLICATION_FAILED' : 'DIAL_FAILED', reason: messageOf(error) };
    this.#asking?.destroy();
    if (response.headersSent) {
      this.#options.abort();
      return;
    }
    this.#message.unpipe();
    this.#message.resume();
    const status = dialled ? 502 : 503;
    const body = dialled ? 'the application gave no answer\n' : 'the application cannot be reached\n';
    this.#options.onLast();
    response.writeHead(status, STATUS_CODES[status], [
      'content-type',
      'text/plain',
      'content-length',
      String(body.length),
      'connection',
      'close',
    ]);
    response.end(body);
  }

  /** Where the application ends its connection, the caller's ends too; and who asked for a 100 and got another answer may leave its body out. */
  #endsConnection(answer: IncomingMessage, fields: readonly HeaderField[]): boolean {
    const tokens = tokensOf(fields, 'connection');
    const closes = tokens.includes('close') || (answer.httpVersion === '1.0' && !tokens.includes('keep-alive'));
    return closes || this.#options.isLast() || (this.#options.outgoing.request.expectsContinue && !this.#continued);
  }

  #settleIfOver(): void {
    if (this.#response.closed && (this.#asking === undefined || this.#asking.closed)) this.#settle();
  }
}

/** One that cannot be sent is left out: the message is whole without it. */
function addTrailers(to: ClientRequest | ServerResponse, trailers: readonly HeaderField[]): void {
  if (trailers.length === 0) return;
  try {
    to.addTrailers(trailers.map(([name, value]): [string, string] => [name, value]));
  } catch {
    // A character that Node does not send.
  }
}

/** Everything that http-proxy has made of the request is taken out again: it joins repeated fields, and drops the framing of some bodies. */
function writeHead(asking: ClientRequest, { request, target, fields }: Outgoing): void {
  for (const name of asking.getHeaderNames()) asking.removeHeader(name);
  asking.path = target;
  for (const [name, value] of fields)
    if (request.framing === 'chunked' || name.toLowerCase() !== 'trailer') asking.appendHeader(name, value);
  if (request.framing === 'chunked') asking.setHeader('transfer-encoding', 'chunked');
  else if (request.framing !== 'none') asking.setHeader('content-length', request.framing.length);
  else if (MAY_HAVE_A_BODY.has(request.method)) asking.setHeader('content-length', '0');
  if (request.expectsContinue) asking.setHeader('expect', '100-continue');
  if (request.takesTrailers) asking.setHeader('te', 'trailers');
}

/** Node would frame what is not there. */
const MAY_HAVE_A_BODY: ReadonlySet<string> = new Set(['POST', 'PUT', 'PATCH']);
