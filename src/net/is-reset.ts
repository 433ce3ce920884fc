// Whether a TCP connection is over in both directions, asked of the kernel: a reset that came while something was being written is told to whoever wrote, and who reads sees a clean end.

import type { Socket } from 'node:net';
import { descriptorOf } from './descriptor.ts';
import { getsockopt } from './libc.ts';

const SOL_TCP = 6;
const TCP_INFO = 11;
/** The first byte of struct tcp_info; after a FIN alone it would be CLOSE_WAIT. */
const TCP_CLOSE = 7;

/** One call at a time, so one pair of buffers. */
const value = Buffer.alloc(8);
const length = new Uint32Array(1);

/** False also where nobody knows: for a socket that is closed already. */
export function isReset(socket: Socket): boolean {
  const fd = descriptorOf(socket);
  if (fd === undefined) return false;
  length[0] = value.length;
  return getsockopt(fd, SOL_TCP, TCP_INFO, value, length) === 0 && value[0] === TCP_CLOSE;
}
