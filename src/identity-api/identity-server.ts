// The sidecar's port for the identity of its pod, plain HTTP on loopback alone: JWT-SVIDs to prove it, verdicts on those of others, keys, and the pod's secrets.

import { HandfastError, messageOf } from '../errors.ts';
import { FairShare } from '../fair-share.ts';
import { type HttpListener, listenHttp } from '../observe/listen-http.ts';
import { TokenBucket } from '../rate-limit.ts';
import { objectionTo } from './guard.ts';
import { httpOf, type IdentityTimeouts } from './identity-http.ts';
import { IdentityRequests, type IdentityRequestsOptions } from './identity-requests.ts';

/** Of the pod's applications together. */
const CONNECTIONS = 256;
/** There may be no IPv6 at all. */
const NO_SUCH_ADDRESS = ['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL'];

/** On 127.0.0.1 and, where there is one, ::1; port 0 takes any free one. Throws CONFIG_INVALID for a port in use. */
export async function serveIdentity(
  options: IdentityRequestsOptions & { port: number; timeouts?: Partial<IdentityTimeouts> },
): Promise<HttpListener> {
  const { log, timeouts } = options;
  const requests = new IdentityRequests(options);
  const share = new FairShare({ all: CONNECTIONS, each: CONNECTIONS });
  const complaints = new TokenBucket({ burst: 1, perSecond: 1 });
  const listening: HttpListener[] = [];
  const close = async () => {
    await Promise.all(listening.map((each) => each.close()));
  };
  const open = async (host: string, port: number) => {
    const server = httpOf({
      answer: (request) => objectionTo(request, request.socket.localPort ?? 0) ?? requests.answer(request),
      log,
      timeouts,
    });
    server.on('connection', (socket) => {
      const giveBack = share.take('pod');
      if (giveBack === undefined) {
        socket.destroy();
        if (complaints.take() === 0) log.warn({ connections: CONNECTIONS }, 'identity port: no more connections are taken at once');
      } else socket.once('close', giveBack);
    });
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
