// The body of a request, as one JSON object of known members.

import type { IncomingMessage } from 'node:http';
import { messageOf } from '../errors.ts';
import { parseStrictObject } from '../spiffe/strict-json.ts';
import { type Reply, refused } from './reply.ts';

/** A token of 16 KiB, an audience, and JSON around them. */
const MAX_BODY_BYTES = 32 * 1024;
const TOO_LONG = refused(413, 'BODY_TOO_LONG', `a body of more than ${MAX_BODY_BYTES} bytes`, { connection: 'close' });

/** The members by name, or why not. Rejects when whoever asked has gone. */
export async function readBody(
  request: IncomingMessage,
  members: readonly string[],
): Promise<{ readonly body: Readonly<Record<string, unknown>> } | { readonly reply: Reply }> {
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) return { reply: TOO_LONG };
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    if (!Buffer.isBuffer(chunk)) continue;
    length += chunk.length;
    if (length > MAX_BODY_BYTES) return { reply: TOO_LONG };
    chunks.push(chunk);
  }
  try {
    const body = parseStrictObject(Buffer.concat(chunks));
    const stranger = Object.keys(body).find((name) => !members.includes(name));
    if (stranger === undefined) return { body };
    return { reply: invalid(`there is no member ${JSON.stringify(stranger.slice(0, 100))}; there are: ${members.join(', ')}`) };
  } catch (error) {
    return { reply: invalid(`the body is not the JSON that is asked for: ${messageOf(error)}`) };
  }
}

export function invalid(message: string): Reply {
  return refused(400, 'REQUEST_INVALID', message);
}
