// A TCP listener for redirected connections: dual-stack where the kernel has IPv6, IPv4 alone where it has not.

import { createServer, type Server, type Socket } from 'node:net';

export interface Listener {
  readonly port: number;
  /** Stops accepting; connections that are open stay open. */
  close(): Promise<void>;
}

export interface ListenOptions {
  /** 0 takes any free one. */
  readonly port: number;
  /** Default: every address, of both families where there are two. */
  readonly host?: string;
  /** Beside other listeners of the same port, also of other threads: the kernel deals connections out among them. */
  readonly reusePort?: boolean;
  /** Default: as long as a client says nothing, the kernel asks now and then whether its host is still there. */
  readonly keepAlive?: boolean;
  readonly onConnection: (socket: Socket) => void;
  /** A connection that could not be accepted, for want of file descriptors mostly; the listener goes on. */
  readonly onError: (error: Error) => void;
}

/** Rejects with the system's error. */
export async function listen(options: ListenOptions): Promise<Listener> {
  const server = createServer({
    allowHalfOpen: true,
    noDelay: true,
    pauseOnConnect: true,
    keepAlive: options.keepAlive ?? true,
    keepAliveInitialDelay: 60_000,
  });
  server.on('connection', options.onConnection);
  try {
    await bind(server, options, options.host ?? '::');
  } catch (error) {
    const noIpv6 = error instanceof Error && 'code' in error && (error.code === 'EAFNOSUPPORT' || error.code === 'EADDRNOTAVAIL');
    if (options.host !== undefined || !noIpv6) throw error;
    await bind(server, options, '0.0.0.0');
  }
  server.on('error', options.onError);
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : options.port;
  return { port, close: () => new Promise((resolve) => server.close(() => resolve())) };
}

function bind(server: Server, { port, reusePort = false }: ListenOptions, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // A full backlog drops connections silently; 511 is Node's default, sidecars see bursts.
    server.listen({ port, host, reusePort, backlog: 4096 }, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}
