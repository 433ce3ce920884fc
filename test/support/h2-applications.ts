// What applications do with a connection, in a few words.

import { once } from 'node:events';
import type { Socket } from 'node:net';
import type { Authorization } from '../../src/policy/authorization.ts';
import { emptyMatch } from '../../src/policy/authorization.ts';

/** Says a word and hears the next. */
export async function say(socket: Socket, word: string): Promise<string> {
  socket.write(word);
  const [answer] = await once(socket, 'data');
  return String(answer);
}

/** How a socket ends: the code of its error, or `closed`. */
export function ending(socket: Socket): Promise<string> {
  let code: string | undefined;
  socket.on('error', (error) => {
    code ??= 'code' in error ? String(error.code) : error.message;
  });
  socket.resume();
  return new Promise((resolve) => socket.once('close', () => resolve(code ?? 'closed')));
}

/** DENY for a principal, or for everybody on a port. */
export function deny(match: { readonly principal?: string; readonly port?: number }): Authorization {
  const { principal, port } = match;
  return {
    name: 'denial',
    namespace: 'bar',
    scope: 'NAMESPACE',
    action: 'DENY',
    rules: [
      [
        [
          {
            ...emptyMatch,
            principals: principal === undefined ? [] : [{ kind: 'exact', value: principal }],
            destinationPorts: port === undefined ? [] : [port],
          },
        ],
      ],
    ],
    dryRun: false,
  };
}

/** Bytes of which each place has its own. */
export function pattern(length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let index = 0; index < length; index++) bytes[index] = index * 31 + (index >> 8) * 7 + (index >> 16);
  return bytes;
}
