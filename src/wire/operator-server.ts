// What operators ask of a running process, as JSON over HTTP on a unix socket that only its owner may open.

import { createServer, type IncomingMessage } from 'node:http';
import { HandfastError, messageOf } from '../errors.ts';
import { holdPath } from './socket-path.ts';

/** A question or an order. `handle` gets the parsed body (undefined without one) and answers with plain data; a HandfastError is the caller's mistake. */
export interface OperatorRoute {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  /** 64 KiB unless told otherwise. */
  readonly maxBodyBytes?: number;
  readonly handle: (body: unknown) => unknown;
}

const MAX_BODY_BYTES = 64 * 1024;

/** Rejects with CONFIG_INVALID or UNAVAILABLE when the socket cannot be had. */
export async function serveOperators(options: {
  path: string;
  takeOver: boolean;
  routes: readonly OperatorRoute[];
}): Promise<{ close(): Promise<void> }> {
  const routes = new Map(options.routes.map((route) => [`${route.method} ${route.path}`, route]));
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 10_000 }, (request, response) => {
    const reply = (status: number, body: unknown) => {
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(`${JSON.stringify(body)}\n`);
    };
    const route = routes.get(`${request.method} ${request.url}`);
    if (route === undefined) {
      const known = [...routes.keys()].join(', ');
      reply(404, { code: 'CONFIG_INVALID', message: `there is no ${request.method} ${request.url}; there are: ${known}` });
      return;
    }
    answer(request, route).then(
      (body) => reply(200, body),
      (error) => {
        const known = error instanceof HandfastError;
        reply(known ? 400 : 500, { code: known ? error.code : 'INTERNAL', message: messageOf(error) });
      },
    );
  });
  const held = await holdPath(server, { path: options.path, mode: 0o600, takeOver: options.takeOver });
  return {
    close: async () => {
      held.release();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

async function answer(request: IncomingMessage, route: OperatorRoute): Promise<unknown> {
  const max = route.maxBodyBytes ?? MAX_BODY_BYTES;
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    if (!Buffer.isBuffer(chunk)) continue;
    length += chunk.length;
    if (length > max) throw new HandfastError('CONFIG_INVALID', `a request of more than ${max} bytes`);
    chunks.push(chunk);
  }
  return (await route.handle(length === 0 ? undefined : parse(Buffer.concat(chunks).toString('utf8')))) ?? {};
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `the request is not JSON: ${messageOf(cause)}`, { cause });
  }
}
