// A small HTTP server of ours put on its port, and taken off it again.

import type { Server } from 'node:http';

export interface HttpListener {
  readonly port: number;
  /** Ends what is under way, too. */
  close(): Promise<void>;
}

/** On every address where no host is named; port 0 takes any free one. Rejects where it cannot be had; errors after that are `onError`'s. */
export async function listenHttp(
  server: Server,
  { port, host, onError }: { port: number; host?: string; onError: (error: Error) => void },
): Promise<HttpListener> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen({ port, ...(host === undefined ? {} : { host }) }, resolve);
  });
  server.removeAllListeners('error').on('error', onError);
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
