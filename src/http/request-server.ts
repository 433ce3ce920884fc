// Connections whose requests are read: Node's HTTP/1.1 server, which listens nowhere, in front of http-proxy.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import type HttpProxy from 'http-proxy';
import type { ErrorCode } from '../errors.ts';
import type { ForwardClientCertMode } from '../policy/forward-client-cert.ts';
import { answerWith } from './answer-with.ts';
import type { ByteCounts } from './application-agent.ts';
import { Caller } from './caller.ts';
import { type ExchangeSettings, exchange } from './exchange.ts';
import type { HttpConnection } from './http-connection.ts';
import { MAX_FIELDS } from './incoming-request.ts';
import { loadHttpProxy } from './load-http-proxy.ts';
import type { RequestForwarding } from './request-forwarding.ts';
import { EarlyWords, isWebSocket, type Upgrading, upgrade } from './upgrade.ts';

/** Envoy's limit for a request's head. */
const MAX_HEAD_BYTES = 60 * 1024;
/** For a request's head, from its first byte. Bodies may take as long as they like, as they may on any connection. */
const HEAD_TIMEOUT_MS = 60_000;
/** For what was refused unread to be taken, before it is cut. */
const LINGER_MS = 5_000;

/** http-proxy wants a URL; where it leads the agent alone decides. */
const APPLICATION = { protocol: 'http:', host: 'application', hostname: 'application', port: 80, path: '' };

export interface RequestServerOptions {
  readonly forwardClientCert: ForwardClientCertMode;
  readonly halfCloseTimeoutMs: number;
  readonly now: () => number;
}

export class RequestServer {
  readonly #server: Server;
  #proxy: HttpProxy | undefined;
  readonly #settings: ExchangeSettings;
  readonly #callers = new Map<Duplex, Caller>();
  readonly #forwardings = new WeakMap<IncomingMessage, RequestForwarding>();
  readonly #upgradings = new WeakMap<IncomingMessage, Upgrading>();
  #draining = false;

  constructor({ forwardClientCert, halfCloseTimeoutMs, now }: RequestServerOptions) {
    this.#settings = { mode: forwardClientCert, isDraining: () => this.#draining, halfCloseTimeoutMs, now };
    this.#server = createServer({
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: HEAD_TIMEOUT_MS,
      requestTimeout: 0,
      keepAliveTimeout: 0,
      noDelay: true,
      insecureHTTPParser: false,
      // It is missed where requests are read, which leaves a record.
      requireHostHeader: false,
      shouldUpgradeCallback: isWebSocket,
    });
    // One more than may be is kept, so that it is seen.
    this.#server.maxHeadersCount = MAX_FIELDS + 1;
    // A caller may say that it says no more, and wait for its answer: Node would end the connection under it.
    Reflect.set(this.#server, 'httpAllowHalfOpen', true);
    this.#server.on('request', (message, response) => this.#onRequest(message, response, false));
    this.#server.on('checkContinue', (message, response) => this.#onRequest(message, response, true));
    this.#server.on('checkExpectation', (message, response) => this.#onRequest(message, response, true));
    this.#server.on('upgrade', (message, socket, head) => this.#onUpgrade(message, socket, head));
    this.#server.on('connect', (_message, socket: Duplex) => this.#refuseUnread(socket, { status: 405, reason: 'CONNECT' }));
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex) => this.#onClientError(error, socket));
    // Node begins to look for heads that take too long when a server listens, which this one never does.
    this.#server.emit('listening');
  }

  /** Resolves when the connection is over. */
  async serve(connection: HttpConnection, onCounts: (counts: ByteCounts) => void): Promise<'closed' | 'downstream-reset'> {
    const { stream } = connection;
    const caller = new Caller(connection, () => this.#draining);
    onCounts(caller.agent);
    this.#callers.set(stream, caller);
    const { promise, resolve } = Promise.withResolvers<'closed' | 'downstream-reset'>();
    let outcome: 'closed' | 'downstream-reset' = 'closed';
    let halfOpen: NodeJS.Timeout | undefined;
    const onClose = () => {
      clearTimeout(halfOpen);
      this.#callers.delete(stream);
      caller.close();
      resolve(outcome);
    };
    stream.on('error', () => {
      outcome = 'downstream-reset';
    });
    if (stream.destroyed) {
      connection.abort();
      onClose();
      return promise;
    }
    stream.once('close', onClose);
    // Ended on our side, it waits for the other's end, but not for ever.
    stream.once('finish', () => {
      if (!caller.isUpgraded) setTimeout(() => connection.abort(), LINGER_MS).unref();
    });
    stream.once('end', () => {
      caller.callerEnded();
      halfOpen = setTimeout(() => connection.abort(), this.#settings.halfCloseTimeoutMs).unref();
    });
    this.#server.emit('connection', stream);
    // It was held while it was judged.
    stream.resume();
    return promise;
  }

  /** Whoever waits for nothing goes; everybody else with the answer that is under way. */
  drain(): void {
    this.#draining = true;
    for (const caller of this.#callers.values()) caller.endIfIdle();
  }

  close(): void {
    this.#server.close();
  }

  /** Loaded with the first request: most sidecars have none to read. */
  #library(): HttpProxy {
    if (this.#proxy !== undefined) return this.#proxy;
    const Library = loadHttpProxy();
    const proxy = new Library({ selfHandleResponse: true, toProxy: true });
    proxy.on('proxyReq', (asking, message) => this.#forwardings.get(message)?.ask(asking));
    proxy.on('proxyRes', (answer, message) => this.#forwardings.get(message)?.answer(answer));
    proxy.on('proxyReqWs', (asking, message) => this.#upgradings.get(message)?.ask(asking));
    this.#proxy = proxy;
    return proxy;
  }

  #onRequest(message: IncomingMessage, response: ServerResponse, expectsContinue: boolean): void {
    const caller = this.#callers.get(message.socket);
    const settings = this.#settings;
    const forward = (forwarding: RequestForwarding) => {
      this.#forwardings.set(message, forwarding);
      // What http-proxy copies: nothing that was not judged leaves, whatever it does or leaves undone.
      message.headers = {};
      this.#library().web(message, response, { target: APPLICATION, agent: caller?.agent }, (error) => forwarding.fail(error));
    };
    const taken = caller?.inTurn(() => exchange(message, response, { caller, settings, expectsContinue, forward }));
    if (taken !== true) this.#overwhelmed(message.socket);
  }

  #onUpgrade(message: IncomingMessage, socket: Duplex, head: Buffer): void {
    const caller = this.#callers.get(socket);
    const forward = (upgrading: Upgrading) => {
      this.#upgradings.set(message, upgrading);
      message.headers = { upgrade: 'websocket' };
      this.#library().ws(message, socket, undefined, { target: APPLICATION, agent: caller?.agent }, (error) => upgrading.giveUp(error));
    };
    if (caller === undefined || caller.takesNoMore) return;
    const early = new EarlyWords(socket, head, () => caller.connection.abort());
    const taken = caller.inTurn(() => upgrade(message, { socket, early, caller, settings: this.#settings, forward }));
    if (taken !== true) this.#overwhelmed(socket);
  }

  #overwhelmed(socket: Duplex): void {
    const caller = this.#callers.get(socket);
    if (caller === undefined) socket.destroy();
    else if (!caller.isOver) {
      caller.isOver = true;
      this.#record(caller, { status: undefined, reason: 'too many requests before their answers' });
      caller.connection.abort();
    }
  }

  #onClientError(error: NodeJS.ErrnoException, socket: Duplex): void {
    const caller = this.#callers.get(socket);
    if (caller === undefined || caller.isOver) return;
    // The connection's own end: it has its record.
    if (error.code === 'ECONNRESET' || error.code === 'EPIPE') return;
    if (error.code === 'HPE_INVALID_EOF_STATE') {
      // Half a request, or a body without its end.
      caller.connection.abort();
      return;
    }
    this.#refuseUnread(socket, { status: statusOf(error), reason: reasonOf(error) });
  }

  /** What cannot be read, nor what follows it. */
  #refuseUnread(socket: Duplex, { status, reason }: { status: number; reason: string }): void {
    const caller = this.#callers.get(socket);
    if (caller === undefined || caller.isOver) return;
    const { isIdle, takesNoMore: isLast } = caller;
    if (isIdle || !isLast) caller.isOver = true;
    // What follows the last answer.
    if (isLast) {
      if (isIdle) socket.end();
      return;
    }
    this.#record(caller, { status: isIdle ? status : undefined, reason });
    // An answer that is under way must not have this one in its middle.
    if (!isIdle || socket.destroyed || socket.writableEnded) {
      caller.connection.abort();
      return;
    }
    answerWith(socket, { status });
  }

  #record(caller: Caller, { status, reason }: { status: number | undefined; reason: string }): void {
    const code: ErrorCode = 'REQUEST_INVALID';
    const outcome = status === undefined ? 'aborted' : 'answered';
    caller.connection.ended({
      request: undefined,
      status,
      decision: 'refused',
      outcome,
      code,
      reason,
      bytesToApplication: 0,
      bytesFromApplication: 0,
      durationMs: 0,
    });
  }
}

function statusOf({ code }: NodeJS.ErrnoException): number {
  if (code === 'HPE_HEADER_OVERFLOW') return 431;
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT') return 408;
  return 400;
}

function reasonOf(error: NodeJS.ErrnoException): string {
  if (error.code === 'HPE_PAUSED_H2_UPGRADE')
    return 'HTTP/2 on a port that is declared HTTP/1.1: name it grpc or http2, and it is passed on as TCP';
  return `${error.code ?? 'unreadable'}: ${error.message}`;
}
