// What has arrived on a socket and was not read yet, without reading it.

import type { Socket } from 'node:net';
import { descriptorOf } from './descriptor.ts';
import { libc } from './libc.ts';

const MSG_PEEK = 2;
const MSG_DONTWAIT = 0x40;

const recv = libc.func('int64_t recv(int fd, void *buffer, uint64_t length, int flags)');

/** Enough for any ClientHello that comes in one piece. One look at a time, so one buffer. */
const seen = Buffer.allocUnsafeSlow(4096);

/** The first bytes in the kernel's buffer, to be looked at before anything else is peeked at; undefined when there are none, or the socket has read some itself. */
export function peek(socket: Socket): Buffer | undefined {
  const fd = descriptorOf(socket);
  if (fd === undefined || socket.readableLength > 0 || socket.bytesRead > 0) return undefined;
  const length = Number(recv(fd, seen, seen.length, MSG_PEEK | MSG_DONTWAIT));
  return length > 0 ? seen.subarray(0, length) : undefined;
}
