// A probe of the application under way: whom it dials, from where, and what ends it.

import type { Socket } from 'node:net';
import { dial } from '../net/dial.ts';

export interface Asking {
  /** The pod's own, which is what kubelet would dial. */
  readonly address: string;
  /** By which the redirection knows what the sidecar hands to the application (`127.0.0.6`, `::6`). */
  readonly source: string;
  /** Every port that any probe names: no other is dialled, whoever asks and wherever an answer points. */
  readonly ports: ReadonlySet<number>;
  readonly userAgent: string | undefined;
  readonly timeoutMs: number;
  /** Aborts with the reason that is to be said. */
  readonly signal: AbortSignal;
}

/** What is said to kubelet, which looks at the status alone. */
export interface ProbeAnswer {
  readonly status: number;
  readonly text: string;
}

/** Rejects with the system's error, or with the signal's reason. */
export async function dialApplication(port: number, { address, source, ports, timeoutMs, signal }: Asking): Promise<Socket> {
  if (!ports.has(port)) throw new Error(`port ${port} is not a probe's`);
  signal.throwIfAborted();
  let dialled: Socket | undefined;
  const end = () => dialled?.destroy();
  signal.addEventListener('abort', end, { once: true });
  try {
    return await dial({
      host: address,
      port,
      timeoutMs,
      localAddress: source,
      keepAlive: false,
      onSocket: (socket) => {
        dialled = socket.on('error', () => undefined);
      },
    });
  } finally {
    signal.removeEventListener('abort', end);
  }
}
