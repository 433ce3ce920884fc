// The asking side of an operator socket, for the command line.

import { request } from 'node:http';
import { type ErrorCode, HandfastError } from '../errors.ts';

const TIMEOUT_MS = 30_000;

/** Throws what the process answered (a HandfastError with its code), or UNAVAILABLE when nobody answers. */
export async function askOperator(socketPath: string, ask: { method: 'GET' | 'POST'; path: string; body?: object }): Promise<unknown> {
  const { status, text } = await send(socketPath, ask);
  const body: unknown = JSON.parse(text);
  if (status === 200) return body;
  const { code, message } = typeof body === 'object' && body !== null ? { code: '', message: text, ...body } : { code: '', message: text };
  throw new HandfastError(isCode(code) ? code : 'UNAVAILABLE', String(message));
}

function send(
  socketPath: string,
  { method, path, body }: { method: string; path: string; body?: object },
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const fail = (cause: Error) => {
      const why = 'code' in cause && cause.code === 'EACCES' ? 'only its owner (root) may' : cause.message;
      reject(
        new HandfastError('UNAVAILABLE', `cannot ask ${socketPath}: ${why}; is the process running, and is this its --run-dir?`, { cause }),
      );
    };
    const asking = request(
      { socketPath, method, path, timeout: TIMEOUT_MS, headers: { 'content-type': 'application/json' } },
      (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', fail);
        response.on('end', () => resolve({ status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') }));
      },
    );
    asking.on('timeout', () => asking.destroy(new Error(`no answer within ${TIMEOUT_MS / 1000} s`)));
    asking.on('error', fail);
    asking.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/** What a process of ours sends is one of ours. */
function isCode(code: unknown): code is ErrorCode {
  return typeof code === 'string' && /^[A-Z_]+$/.test(code) && code !== 'INTERNAL';
}
