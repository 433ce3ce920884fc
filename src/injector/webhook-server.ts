// The webhook over HTTPS: bounded in size, time and number, since every pod of the cluster can reach it; certificates are exchanged while it serves.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import { Socket } from 'node:net';
import { HandfastError, messageOf } from '../errors.ts';
import { FairShare, type Shares } from '../fair-share.ts';
import type { Log } from '../observe/log.ts';
import { METRICS_CONTENT_TYPE } from '../observe/metrics-text.ts';
import type { Reviewed } from './review.ts';

export interface ServerKeyPair {
  /** PEM. */
  readonly key: string;
  readonly certificate: string;
}

export interface WebhookServerOptions {
  /** 0 takes any free one. */
  readonly port: number;
  readonly host?: string;
  readonly serving: ServerKeyPair;
  readonly answer: (body: string) => Promise<Reviewed>;
  /** Prometheus' text. */
  readonly metrics?: () => string;
  readonly log: Log;
  readonly connections?: Shares;
  readonly maxBodyBytes?: number;
  /** For a whole request to come. */
  readonly bodyTimeoutMs?: number;
}

/** A pod has at most 1.5 MiB where it is stored, and stands in a review once or twice. */
const MAX_BODY_BYTES = 3.5 * 1024 * 1024;
/** The API server gives a webhook ten seconds unless told otherwise. */
const BODY_TIMEOUT_MS = 10_000;
const TIMEOUTS = {
  headersTimeout: 5_000,
  requestTimeout: 15_000,
  handshakeTimeout: 5_000,
  keepAliveTimeout: 5_000,
  connectionsCheckingInterval: 1_000,
};
/** Every pod of the cluster may call: one that opens all it can get must leave the API servers theirs. */
const CONNECTIONS = { all: 1_000, each: 128 };
const REVIEW_PATH = '/inject';
const HEALTH_PATH = '/healthz';
const METRICS_PATH = '/metrics';

export class WebhookServer {
  readonly port: number;
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  /** Throws CONFIG_INVALID for a port in use. */
  static async start(options: WebhookServerOptions): Promise<WebhookServer> {
    const { log } = options;
    const server = createServer({ ...secure(options.serving), ...TIMEOUTS }, (request, response) => {
      if (!server.listening) response.setHeader('connection', 'close');
      answer(request, response, options).catch((error: unknown) => {
        log.error({ err: error }, 'a review could not be answered');
        if (response.headersSent) response.destroy();
        else reply(response, 500, 'the injector could not answer; its log says why\n');
      });
    });
    const share = new FairShare(options.connections ?? CONNECTIONS);
    server.on('connection', (socket) => {
      const giveBack = share.take(socket instanceof Socket ? (socket.remoteAddress ?? '') : '');
      if (giveBack === undefined) socket.destroy();
      else socket.once('close', giveBack);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) =>
        reject(new HandfastError('CONFIG_INVALID', `cannot listen for the API server: ${messageOf(cause)}`, { cause })),
      );
      server.listen({ port: options.port, ...(options.host === undefined ? {} : { host: options.host }) }, resolve);
    });
    server.removeAllListeners('error').on('error', (error) => log.error({ err: error }, 'the listener failed'));
    server.on('tlsClientError', (error) => log.debug({ reason: messageOf(error) }, 'a TLS handshake failed'));
    const address = server.address();
    return new WebhookServer(server, typeof address === 'object' && address !== null ? address.port : options.port);
  }

  /** For connections from now on; open ones stay as they are. */
  replace(serving: ServerKeyPair): void {
    this.#server.setSecureContext(secure(serving));
  }

  /** Takes no more connections, ends idle ones, and waits this long for requests under way. */
  async stop(graceMs: number): Promise<void> {
    const cut = setTimeout(() => this.#server.closeAllConnections(), graceMs);
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    clearTimeout(cut);
  }
}

function secure({ key, certificate }: ServerKeyPair) {
  return { key, cert: certificate, minVersion: 'TLSv1.2' } as const;
}

async function answer(request: IncomingMessage, response: ServerResponse, options: WebhookServerOptions): Promise<void> {
  // The API server adds ?timeout=.
  const path = request.url?.split('?')[0];
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  if (path === HEALTH_PATH && isRead) return reply(response, 200, 'ok\n');
  if (path === METRICS_PATH && isRead && options.metrics !== undefined)
    return reply(response, 200, options.metrics(), { 'content-type': METRICS_CONTENT_TYPE });
  if (path !== REVIEW_PATH) return reply(response, 404, `there are POST ${REVIEW_PATH}, GET ${HEALTH_PATH} and GET ${METRICS_PATH}\n`);
  if (request.method !== 'POST') return reply(response, 405, `${REVIEW_PATH} takes POST\n`, { allow: 'POST' });
  const body = await readBody(request, options);
  if (body === undefined) return;
  if (typeof body !== 'string') {
    // What is still coming is read by nobody.
    return reply(response, body.status, `${body.why}\n`, { connection: 'close' });
  }
  try {
    const { answer: review, ...said } = await options.answer(body);
    options.log[said.outcome === 'refused' ? 'warn' : 'info'](said, 'pod reviewed');
    reply(response, 200, JSON.stringify(review), { 'content-type': 'application/json' });
  } catch (error) {
    if (!(error instanceof HandfastError) || error.code !== 'OBJECT_INVALID') throw error;
    options.log.warn({ reason: error.message }, 'a review was malformed');
    reply(response, 400, `${error.message}\n`);
  }
}

/** The text; the status to refuse with; or undefined where the client has gone. */
function readBody(
  request: IncomingMessage,
  { maxBodyBytes = MAX_BODY_BYTES, bodyTimeoutMs = BODY_TIMEOUT_MS }: WebhookServerOptions,
): Promise<string | { status: 408 | 413; why: string } | undefined> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const done = (result: string | { status: 408 | 413; why: string } | undefined) => {
      clearTimeout(timer);
      request.removeAllListeners('data');
      request.resume();
      resolve(result);
    };
    const timer = setTimeout(() => done({ status: 408, why: `the review did not come within ${bodyTimeoutMs} ms` }), bodyTimeoutMs);
    request.on('error', () => done(undefined));
    request.on('close', () => done(undefined));
    request.on('end', () => done(Buffer.concat(chunks).toString('utf8')));
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      chunks.push(chunk);
      if (size > maxBodyBytes) done({ status: 413, why: `a review of more than ${maxBodyBytes} bytes` });
    });
  });
}

function reply(response: ServerResponse, status: number, text: string, headers: Readonly<Record<string, string>> = {}): void {
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', ...headers });
  response.end(text);
}
