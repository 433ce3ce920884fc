// Readiness over HTTP: GET /healthz/ready answers 200 or 503; from the pod itself also with what is missing, one reason a line.

import { createServer } from 'node:http';

export interface ReadinessServer {
  readonly port: number;
  close(): Promise<void>;
}

/** `missing` lists why new connections cannot be served; an empty list is ready. */
export async function serveReadiness(options: {
  port: number;
  missing: () => readonly string[];
  onError: (error: Error) => void;
}): Promise<ReadinessServer> {
  const server = createServer({ requestTimeout: 5_000, headersTimeout: 5_000, keepAliveTimeout: 5_000 }, (request, response) => {
    const path = request.url?.split('?')[0];
    if (path !== '/healthz/ready' || (request.method !== 'GET' && request.method !== 'HEAD')) {
      response.writeHead(404).end();
      return;
    }
    const missing = options.missing();
    response.writeHead(missing.length === 0 ? 200 : 503, { 'content-type': 'text/plain' });
    // Identities and reasons are nobody's business on the network.
    const local = /^(::ffff:)?127\.|^::1$/.test(request.socket.remoteAddress ?? '');
    response.end(missing.length === 0 ? 'ready\n' : local ? `${missing.join('\n')}\n` : 'not ready\n');
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, resolve);
  });
  server.removeAllListeners('error').on('error', options.onError);
  const address = server.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : options.port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
