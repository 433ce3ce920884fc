// The identity API's HTTP: bounded in time, answers in JSON, and nothing that goes wrong goes further.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { Reply } from './reply.ts';

const TIMEOUTS = { requestTimeout: 5_000, headersTimeout: 5_000, keepAliveTimeout: 30_000, connectionsCheckingInterval: 1_000 };
export type IdentityTimeouts = typeof TIMEOUTS;
/** Whoever neither asks nor reads on is not waited for; longer than the agent may take. */
const STALLED_MS = 35_000;

type Answer = (request: IncomingMessage) => Reply | Promise<Reply>;

/** Listens to nothing yet. `answer` rejects when whoever asked has gone. */
export function httpOf({
  answer,
  log,
  timeouts = {},
}: {
  answer: Answer;
  log: Log;
  timeouts?: Partial<IdentityTimeouts> | undefined;
}): Server {
  const server = createServer({ ...TIMEOUTS, ...timeouts }, (request, response) => {
    reply(request, response, answer).catch((error: unknown) => {
      // Whoever asked has gone.
      if (request.readableAborted || response.destroyed) return void response.destroy();
      log.error({ reason: messageOf(error) }, 'identity request not answered');
      if (response.headersSent) return void response.destroy();
      response.writeHead(500, { connection: 'close' }).end();
    });
  });
  server.setTimeout(STALLED_MS);
  return server;
}

async function reply(request: IncomingMessage, response: ServerResponse, answer: Answer): Promise<void> {
  const { status, body, headers } = await answer(request);
  if (response.destroyed) return;
  // The rest of a body that nobody reads is not waited for.
  const rest = request.complete ? {} : { connection: 'close' };
  const bytes = body === undefined || Buffer.isBuffer(body) ? body : Buffer.from(`${JSON.stringify(body)}\n`);
  const type = body === undefined ? {} : { 'content-type': Buffer.isBuffer(body) ? 'application/octet-stream' : 'application/json' };
  const length = bytes === undefined ? {} : { 'content-length': bytes.length };
  const common = { ...type, ...length, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' };
  response.writeHead(status, { ...common, ...rest, ...headers });
  response.end(bytes);
}
