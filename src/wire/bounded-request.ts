// One HTTP request to an issuer or an API server: no redirects, a deadline for all of it, and an answer of bounded size.

import { request as httpRequest, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { LookupFunction } from 'node:net';
import { HandfastError, messageOf } from '../errors.ts';

export interface BoundedRequest {
  readonly method: 'GET' | 'POST';
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** PEM of the authorities that may have signed the server's certificate; default those that Node trusts. */
  readonly ca?: string;
  /** How names become addresses; default the system's way. */
  readonly lookup?: LookupFunction;
  readonly timeoutMs: number;
  readonly maxBytes: number;
}

/** Status and text, whatever the status is. Throws UNAVAILABLE when there is no whole answer. */
export async function boundedRequest(url: URL, of: BoundedRequest): Promise<{ status: number; text: string }> {
  try {
    return await answerOf(url, of);
  } catch (cause) {
    throw new HandfastError('UNAVAILABLE', `${of.method} ${url.origin}${url.pathname}: ${messageOf(cause)}`, { cause });
  }
}

/** Whether a URL may be asked: over TLS, or in plaintext where nobody can listen. */
export function isConfidential(url: URL): boolean {
  return url.protocol === 'https:' || (url.protocol === 'http:' && /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/.test(url.hostname));
}

function answerOf(url: URL, of: BoundedRequest): Promise<{ status: number; text: string }> {
  const signal = AbortSignal.timeout(of.timeoutMs);
  const options = {
    method: of.method,
    headers: { accept: 'application/json', connection: 'close', ...of.headers },
    agent: false,
    signal,
    ...(of.lookup === undefined ? {} : { lookup: of.lookup }),
  };
  return new Promise((resolve, reject) => {
    const onAnswer = (answer: IncomingMessage) => {
      readBounded(answer, of.maxBytes).then((text) => resolve({ status: answer.statusCode ?? 0, text }), reject);
    };
    const request =
      url.protocol === 'https:'
        ? httpsRequest(url, { ...options, ...(of.ca === undefined ? {} : { ca: of.ca }) }, onAnswer)
        : httpRequest(url, options, onAnswer);
    request.on('error', (error) => reject(signal.aborted ? new Error(`no answer within ${of.timeoutMs} ms`, { cause: error }) : error));
    request.end(of.body);
  });
}

async function readBounded(answer: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer) {
    const bytes = Buffer.from(chunk);
    size += bytes.length;
    if (size > maxBytes) {
      answer.destroy();
      throw new Error(`the answer is longer than ${maxBytes} bytes`);
    }
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString('utf8');
}
