// A peer that takes tunnels, holds a good certificate, and answers as it is told to; and a client's sidecar that calls it.

import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import type { PipelineSettings } from '../../src/proxy/context.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { contextOptions } from '../../src/tls/context.ts';
import { PREFACE, RawPeer, settings } from './h2-frames.ts';
import { collect, meshOf, type RunningSidecar, startSidecar } from './sidecar-harness.ts';

export interface RawServer extends AsyncDisposable {
  readonly port: number;
  /** Sessions so far, in order. */
  readonly peers: RawPeer[];
  /** The n-th session (from 1), now or later. */
  session(nth: number): Promise<RawPeer>;
}

/** `greeting`: what each session begins with; SETTINGS without any unless told otherwise. */
export async function startRawServer(
  identity: Identity,
  { greeting = settings(), onSession }: { greeting?: Buffer; onSession?: (peer: RawPeer, nth: number) => void } = {},
): Promise<RawServer> {
  const peers: RawPeer[] = [];
  const waiting: { nth: number; resolve: (peer: RawPeer) => void }[] = [];
  const sockets = new Set<TLSSocket>();
  const server = createServer({ ...contextOptions(identity), requestCert: true, ALPNProtocols: ['h2'] }, (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    const peer = new RawPeer(socket, { skip: PREFACE.length });
    peer.send(greeting);
    peers.push(peer);
    for (const { nth, resolve } of waiting) if (nth === peers.length) resolve(peer);
    onSession?.(peer, peers.length);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    peers,
    session: (nth) => {
      const peer = peers[nth - 1];
      return peer === undefined ? new Promise((resolve) => waiting.push({ nth, resolve })) : Promise.resolve(peer);
    },
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/** The sidecar of sleep.foo, for which httpbin.bar at 127.0.0.1 takes tunnels at a port. `port` of the destination is arbitrary: CONNECT only names it. */
export async function startCaller(
  identity: Identity,
  tunnelPort: number,
  settings: Partial<PipelineSettings> = {},
): Promise<RunningSidecar> {
  const caller = await startSidecar({ namespace: 'foo', name: 'sleep', identity, settings, tunnelPortOf: () => tunnelPort });
  caller.mesh.replace(
    meshOf({
      workloads: [
        { namespace: 'foo', name: 'sleep' },
        { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'], hbone: true },
      ],
    }),
  );
  caller.destination = { address: '127.0.0.1', port: 8080 };
  return caller;
}

/** What comes back for a word, or the error. */
export async function askThrough(socket: Socket, word: string): Promise<string> {
  socket.write(word);
  socket.once('data', () => socket.end());
  const { text, error } = await collect(socket);
  return error ?? text;
}
