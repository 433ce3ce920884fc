// Two ends of a connection in memory: what a session needs of a TLS socket, and a peer's end of it.

import { type Duplex, duplexPair } from 'node:stream';
import type { TLSSocket } from 'node:tls';

export interface MemoryWire {
  /** For a session; sessions ask for no more of a TLSSocket than any Duplex has. */
  readonly socket: TLSSocket;
  readonly far: Duplex;
}

export function memoryWire(): MemoryWire {
  const [near, far] = duplexPair();
  far.on('error', () => undefined);
  return { socket: near as TLSSocket, far };
}
