// The HTTP path on plain sockets: callers on loopback, an application behind, and a verdict that a test may turn.

import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { ForwardedPeer } from '../../src/http/forwarded-client-cert.ts';
import type { RequestEnd, RequestVerdict } from '../../src/http/http-connection.ts';
import type { IncomingRequest } from '../../src/http/incoming-request.ts';
import { RequestServer } from '../../src/http/request-server.ts';
import { cut } from '../../src/net/splice.ts';
import type { ForwardClientCertMode } from '../../src/policy/forward-client-cert.ts';

export const pass: RequestVerdict = { allowed: true, remove: [], add: [] };

export interface HttpRig extends AsyncDisposable {
  readonly port: number;
  readonly requests: RequestServer;
  readonly ended: RequestEnd[];
  /** Sockets to the application that are open now. */
  readonly upstreams: Set<Socket>;
  judge: (request: IncomingRequest) => RequestVerdict;
  /** Connections that are being served now. */
  serving: number;
  /** Resolves when the n-th request has ended. */
  end(nth: number): Promise<RequestEnd>;
}

export async function httpRig(of: { applicationPort: number; mode?: ForwardClientCertMode; from?: ForwardedPeer }): Promise<HttpRig> {
  const requests = new RequestServer({ forwardClientCert: of.mode ?? 'SANITIZE_SET', halfCloseTimeoutMs: 60_000, now: Date.now });
  const sockets = new Set<Socket>();
  const wake = new Set<() => void>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    socket.on('error', () => undefined);
    rig.serving++;
    const held: Socket[] = [socket];
    const connection = {
      stream: socket,
      from: of.from,
      authority: `127.0.0.1:${of.applicationPort}`,
      dial: () => {
        const upstream = connect({ host: '127.0.0.1', port: of.applicationPort, allowHalfOpen: true, noDelay: true });
        upstream.on('error', () => undefined);
        rig.upstreams.add(upstream);
        held.push(upstream);
        upstream.once('close', () => rig.upstreams.delete(upstream));
        return upstream;
      },
      judge: (request: IncomingRequest) => rig.judge(request),
      ended: (end: RequestEnd) => {
        rig.ended.push(end);
        for (const one of [...wake]) one();
      },
      abort: () => {
        for (const one of held) cut(one);
      },
    };
    void requests
      .serve(connection, () => undefined)
      .then(() => {
        rig.serving--;
        for (const one of [...wake]) one();
      });
  });
  const rig: HttpRig = {
    port: 0,
    requests,
    ended: [],
    upstreams: new Set(),
    judge: () => pass,
    serving: 0,
    end: async (nth) => {
      for (;;) {
        const found = rig.ended[nth - 1];
        if (found !== undefined) return found;
        const { promise, resolve, reject } = Promise.withResolvers<void>();
        const timer = setTimeout(() => reject(new Error(`request ${nth} has not ended within 10 s`)), 10_000);
        wake.add(resolve);
        await promise.finally(() => {
          wake.delete(resolve);
          clearTimeout(timer);
        });
      }
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of [...sockets, ...rig.upstreams]) socket.destroy();
      requests.close();
      server.close();
      await once(server, 'close');
    },
  };
  return Object.assign(rig, { port: await listening(server) });
}

export async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

/** What a raw caller hears: sends bytes, and gives everything that came until the other side ends, is silent for `quietMs`, or resets. */
export async function say(port: number, text: string | Buffer, { quietMs = 300, end = false } = {}): Promise<string> {
  const socket = connect({ host: '127.0.0.1', port });
  let heard = '';
  socket.setEncoding('latin1');
  socket.on('data', (chunk: string) => {
    heard += chunk;
  });
  socket.on('error', (error: NodeJS.ErrnoException) => {
    heard += `<${error.code}>`;
  });
  await once(socket, 'connect');
  if (end) socket.end(text);
  else socket.write(text);
  const { promise, resolve } = Promise.withResolvers<void>();
  let timer = setTimeout(resolve, quietMs);
  socket.on('data', () => {
    clearTimeout(timer);
    timer = setTimeout(resolve, quietMs);
  });
  socket.once('close', () => resolve());
  socket.once('end', () => resolve());
  await promise;
  clearTimeout(timer);
  socket.destroy();
  return heard;
}
