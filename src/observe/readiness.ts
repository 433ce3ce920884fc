// Readiness over HTTP: GET /healthz/ready answers 200 or 503; from the pod itself also with what is missing or should be looked at, one a line.

import { createServer } from 'node:http';

export interface ReadinessServer {
  readonly port: number;
  close(): Promise<void>;
}

/** `missing` lists why new connections cannot be served; an empty list is ready. `warnings` are said besides. */
export async function serveReadiness(options: {
  port: number;
  missing: () => readonly string[];
  warnings: () => readonly string[];
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
    const warnings = options.warnings().map((warning) => `warning: ${warning}\n`);
    const local = /^(::ffff:)?127\.|^::1$/.test(request.socket.remoteAddress ?? '');
    const verdict = missing.length === 0 ? 'ready\n' : local ? `${missing.join('\n')}\n` : 'not ready\n';
    response.end(local ? verdict + warnings.join('') : verdict);
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
