// Readiness over HTTP: GET /healthz/ready answers 200 or 503; from the pod itself also with what is missing or should be looked at, one a line.

import { createServer } from 'node:http';
import { askedLocally } from './asked-locally.ts';
import { type HttpListener, listenHttp } from './listen-http.ts';

/** `missing` lists why new connections cannot be served; an empty list is ready. `warnings` are said besides. */
export interface Standing {
  readonly missing: () => readonly string[];
  readonly warnings: () => readonly string[];
}

export const READINESS_PATH = '/healthz/ready';

export async function serveReadiness(options: Standing & { port: number; onError: (error: Error) => void }): Promise<HttpListener> {
  const server = createServer({ requestTimeout: 5_000, headersTimeout: 5_000, keepAliveTimeout: 5_000 }, (request, response) => {
    const path = request.url?.split('?')[0];
    if (path !== READINESS_PATH || (request.method !== 'GET' && request.method !== 'HEAD')) {
      response.writeHead(404).end();
      return;
    }
    const { status, text } = readinessAnswer(options, askedLocally(request.socket.remoteAddress));
    response.writeHead(status, { 'content-type': 'text/plain' }).end(text);
  });
  return listenHttp(server, options);
}

/** What is answered; identities and reasons are nobody's business on the network. */
export function readinessAnswer(standing: Standing, local: boolean): { readonly status: 200 | 503; readonly text: string } {
  const missing = standing.missing();
  const verdict = missing.length === 0 ? 'ready\n' : local ? `${missing.join('\n')}\n` : 'not ready\n';
  const warnings = local ? standing.warnings().map((warning) => `warning: ${warning}\n`) : [];
  return { status: missing.length === 0 ? 200 : 503, text: verdict + warnings.join('') };
}
