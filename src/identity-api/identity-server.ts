// The sidecar's port for the identity of its pod, plain HTTP on loopback alone: JWT-SVIDs to prove it, verdicts on those of others, and keys.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { HandfastError, messageOf } from '../errors.ts';
import { FairShare } from '../fair-share.ts';
import { type HttpListener, listenHttp } from '../observe/listen-http.ts';
import { objectionTo } from './guard.ts';
import { IdentityRequests, type IdentityRequestsOptions } from './identity-requests.ts';
import type { Reply } from './reply.ts';

const TIMEOUTS = { requestTimeout: 5_000, headersTimeout: 5_000, keepAliveTimeout: 30_000, connectionsCheckingInterval: 1_000 };
/** Whoever neither asks nor reads on is not waited for; longer than the agent may take. */
const STALLED_MS = 35_000;
/** Of the pod's applications together. */
const CONNECTIONS = 256;
/** There may be no IPv6 at all. */
const NO_SUCH_ADDRESS = ['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL'];

/** On 127.0.0.1 and, where there is one, ::1; port 0 takes any free one. Throws CONFIG_INVALID for a port in use. */
export async function serveIdentity(
  options: IdentityRequestsOptions & { port: number; timeouts?: Partial<typeof TIMEOUTS> },
): Promise<HttpListener> {
  const { log } = options;
  const requests = new IdentityRequests(options);
  const share = new FairShare({ all: CONNECTIONS, each: CONNECTIONS });
  const listening: HttpListener[] = [];
  const close = async () => {
    await Promise.all(listening.map((each) => each.close()));
  };
  const open = async (host: string, port: number) => {
    const server = newServer(requests, { share, log, timeouts: { ...TIMEOUTS, ...options.timeouts } });
    listening.push(await listenHttp(server, { port, host, onError: (error) => log.error({ reason: messageOf(error) }, 'identity port') }));
  };
  try {
    await open('127.0.0.1', options.port);
    const port = listening[0]?.port ?? options.port;
    await open('::1', port).catch((error: unknown) => {
      const code = error instanceof Error && 'code' in error ? String(error.code) : '';
      if (!NO_SUCH_ADDRESS.includes(code)) throw error;
    });
    return { port, close };
  } catch (cause) {
    await close();
    throw new HandfastError('CONFIG_INVALID', `cannot listen for --identity-port: ${messageOf(cause)}`, { cause });
  }
}

function newServer(
  requests: IdentityRequests,
  { share, log, timeouts }: { share: FairShare; log: IdentityRequestsOptions['log']; timeouts: typeof TIMEOUTS },
): Server {
  const server = createServer(timeouts, (request, response) => {
    reply(request, response, requests).catch((error: unknown) => {
      // Whoever asked may have gone; what cannot be told must not end the data path.
      if (!request.destroyed) log.error({ reason: messageOf(error) }, 'identity request not answered');
      response.destroy();
    });
  });
  server.setTimeout(STALLED_MS);
  server.on('connection', (socket) => {
    const giveBack = share.take('pod');
    if (giveBack === undefined) socket.destroy();
    else socket.once('close', giveBack);
  });
  return server;
}

async function reply(request: IncomingMessage, response: ServerResponse, requests: IdentityRequests): Promise<void> {
  const objection = objectionTo(request, request.socket.localPort ?? 0);
  const { status, body, headers }: Reply = objection ?? (await requests.answer(request));
  if (response.destroyed) return;
  // The rest of a body that nobody reads is not waited for.
  const rest = request.complete ? {} : { connection: 'close' };
  response.writeHead(status, {
    'content-type': 'application/json',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...rest,
    ...headers,
  });
  response.end(`${JSON.stringify(body)}\n`);
}
