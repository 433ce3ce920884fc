// The serving side of a tunnel alone: a port, mTLS, and a word to say about every CONNECT; by default it is accepted and echoes.

import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { ReceiveBudget } from '../../src/hbone/receive-budget.ts';
import { type TunnelRequest, TunnelServer } from '../../src/hbone/tunnel-server.ts';
import type { TunnelSink, TunnelStream } from '../../src/hbone/tunnel-stream.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { chooseHttp2 } from '../../src/tls/alpn.ts';
import { Terminator } from '../../src/tls/terminate.ts';

export interface TunnelRig extends AsyncDisposable {
  readonly port: number;
  readonly server: TunnelServer;
  /** Every CONNECT so far. */
  readonly requests: TunnelRequest[];
  /** What is said about the next ones. */
  onConnect: (request: TunnelRequest) => void;
  /** Asked about every peer whose handshake is done; throws for one that is not to be let in. */
  onAdmit: () => void;
  /** When a connection has been accepted, its handshake not begun. */
  onAccept: () => void;
  /** From now on it has another certificate, and asks who is there to come again. */
  rotate(next: Identity): void;
}

const ignore = () => undefined;
export const deafSink: TunnelSink = { data: () => true, end: ignore, drained: ignore, broken: ignore, closed: ignore };

/** Accepts, and says everything back. */
export function echo({ accept, stream }: { accept(): void; stream: TunnelStream }): void {
  accept();
  stream.attach({ ...deafSink, data: (bytes) => stream.write(Buffer.from(bytes)) || true, end: () => stream.end() });
}

export async function startTunnelRig(identity: Identity, { silenceMs = 15_000 } = {}): Promise<TunnelRig> {
  const terminator = new Terminator({
    handshakeTimeoutMs: 5_000,
    chooseAlpn: chooseHttp2,
    revocations: () => noRevocations,
    now: Date.now,
  });
  terminator.replace(identity);
  const requests: TunnelRequest[] = [];
  const server = new TunnelServer({
    terminator,
    budget: new ReceiveBudget(),
    silenceMs,
    admit: () => rig.onAdmit(),
    onConnect: (request) => {
      requests.push(request);
      rig.onConnect(request);
    },
  });
  const listener = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    socket.on('error', ignore);
    server.accept(socket).catch(() => socket.destroy());
    rig.onAccept();
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const rig: TunnelRig = {
    port: (listener.address() as AddressInfo).port,
    server,
    requests,
    onConnect: echo,
    onAdmit: ignore,
    onAccept: ignore,
    rotate: (next) => {
      terminator.replace(next);
      server.drain();
    },
    [Symbol.asyncDispose]: async () => {
      server.close();
      listener.close();
      await once(listener, 'close');
    },
  };
  return rig;
}
