// An answer that no ServerResponse can give: on a connection that Node has let go of, or cannot read any more.

import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import type { HeaderField } from './message-headers.ts';

/** A whole answer, on a connection that ends with it. `text`: the reason phrase; default the status' own. */
export function answerWith(socket: Duplex, of: { status: number; text?: string; fields?: readonly HeaderField[]; body?: Buffer }): void {
  if (socket.destroyed || socket.writableEnded) return;
  const { status, text = STATUS_CODES[status] ?? '', body = Buffer.alloc(0) } = of;
  const fields: HeaderField[] = [...(of.fields ?? []), ['content-length', String(body.length)], ['connection', 'close']];
  socket.write(headOf({ status, text, fields }), 'latin1');
  socket.end(body);
  // What still comes is nobody's.
  socket.resume();
}

/** As bytes of Latin-1, which is what Node has read fields as. */
export function headOf({ status, text, fields }: { status: number; text: string; fields: readonly HeaderField[] }): string {
  return `HTTP/1.1 ${status} ${text}\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
}
