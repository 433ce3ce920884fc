// Port 15020, plain HTTP: the application's probes, metrics, readiness, and /quitquitquit for whoever is in the pod.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { HandfastError, messageOf } from '../errors.ts';
import { FairShare } from '../fair-share.ts';
import { askedLocally } from '../observe/asked-locally.ts';
import { type HttpListener, listenHttp } from '../observe/listen-http.ts';
import { METRICS_CONTENT_TYPE } from '../observe/metrics-text.ts';
import { READINESS_PATH, readinessAnswer, type Standing } from '../observe/readiness.ts';
import type { AppProbes } from './app-probes.ts';

export interface StatusServerOptions {
  /** 0 takes any free one. */
  readonly port: number;
  readonly standing: Standing;
  /** `local`: only the pod itself may read them. */
  readonly metrics: { readonly text: () => string; readonly audience: 'all' | 'local' };
  readonly probes: AppProbes;
  /** Somebody in the pod wants the sidecar to end as by SIGTERM. */
  readonly onQuit: () => void;
  readonly onError: (error: Error) => void;
}

const QUIT_PATH = '/quitquitquit';
const METRICS_PATHS: ReadonlySet<string> = new Set(['/metrics', '/stats/prometheus']);
const TIMEOUTS = { requestTimeout: 5_000, headersTimeout: 5_000, keepAliveTimeout: 5_000, connectionsCheckingInterval: 1_000 };
/** Whoever reads an answer no further is not waited for. */
const STALLED_MS = 10_000;
const CONNECTIONS = { all: 512, each: 64 };

/** Throws CONFIG_INVALID for a port in use. */
export async function serveStatus(options: StatusServerOptions): Promise<HttpListener> {
  const server = createServer(TIMEOUTS, (request, response) => {
    // What cannot be told must not end the data path.
    answer(request, response, options).catch((error: unknown) => {
      options.onError(error instanceof Error ? error : new Error(String(error)));
      response.destroy();
    });
  });
  const share = new FairShare(CONNECTIONS);
  server.setTimeout(STALLED_MS);
  server.on('connection', (socket) => {
    const giveBack = share.take(socket.remoteAddress ?? '');
    if (giveBack === undefined) socket.destroy();
    else socket.once('close', giveBack);
  });
  return listenHttp(server, options).catch((cause) => {
    throw new HandfastError('CONFIG_INVALID', `cannot listen for status: ${messageOf(cause)}`, { cause });
  });
}

interface Reply {
  readonly status: number;
  readonly text: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const FROM_ELSEWHERE: Reply = { status: 403, text: 'only from the pod itself' };

async function answer(request: IncomingMessage, response: ServerResponse, options: StatusServerOptions): Promise<void> {
  const gone = new AbortController();
  response.once('close', () => gone.abort(new Error('whoever asked has gone')));
  const { status, text, headers } = await replyTo(request, gone.signal, options);
  if (response.destroyed) return;
  response.writeHead(status, { 'content-type': 'text/plain; charset=utf-8', ...headers });
  response.end(text.endsWith('\n') ? text : `${text}\n`);
}

function replyTo(request: IncomingMessage, gone: AbortSignal, options: StatusServerOptions): Reply | Promise<Reply> {
  const { standing, metrics, probes, onQuit } = options;
  const [path = ''] = (request.url ?? '').split('?');
  const local = askedLocally(request.socket.remoteAddress);
  if (path === QUIT_PATH) {
    if (!local) return FROM_ELSEWHERE;
    if (request.method !== 'POST') return { status: 405, text: 'only POST', headers: { allow: 'POST' } };
    // Said or not: whoever asked meant it.
    gone.addEventListener('abort', onQuit, { once: true });
    return { status: 200, text: 'OK', headers: { connection: 'close' } };
  }
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return { status: 405, text: 'only GET and HEAD', headers: { allow: 'GET, HEAD' } };
  if (path === READINESS_PATH) return readinessAnswer(standing, local);
  if (METRICS_PATHS.has(path)) {
    if (metrics.audience === 'local' && !local) return FROM_ELSEWHERE;
    return { status: 200, text: metrics.text(), headers: { 'content-type': METRICS_CONTENT_TYPE } };
  }
  return probes.has(path) ? probed(path, request, { gone, probes }) : { status: 404, text: 'there is nothing here' };
}

async function probed(path: string, request: IncomingMessage, { gone, probes }: { gone: AbortSignal; probes: AppProbes }): Promise<Reply> {
  const { socket, headers } = request;
  // The probe has a deadline of its own, which may be longer.
  socket.setTimeout(0);
  try {
    return await probes.answer(path, { address: socket.remoteAddress ?? '', userAgent: headers['user-agent'], gone });
  } finally {
    socket.setTimeout(STALLED_MS);
  }
}
