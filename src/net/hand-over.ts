// A connection that one thread accepts and another serves: its descriptor is duplicated, and whoever has not passed the duplicate on closes it.

import { closeSync, fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import { descriptorOf } from './descriptor.ts';
import { libc } from './libc.ts';

const F_DUPFD_CLOEXEC = 1030;

const fcntl = libc.func('int fcntl(int fd, int cmd, ...)');

/** `inode` tells it from whatever has its number after it. */
export interface Duplicate {
  readonly fd: number;
  readonly inode: number;
}

/** Destroys the socket, unread as it must be, and keeps its connection open by a duplicate. Undefined without one to be had: then the connection is over. */
export function detach(socket: Socket): Duplicate | undefined {
  const own = descriptorOf(socket);
  const fd: unknown = own === undefined ? undefined : fcntl(own, F_DUPFD_CLOEXEC, 'int', 0);
  // No shutdown: the connection lives as long as one descriptor of it does.
  socket.destroy();
  return typeof fd === 'number' && fd >= 0 ? { fd, inode: fstatSync(fd).ino } : undefined;
}

/** The connection of a duplicate, paused as it was accepted. From now on the socket closes it, also when this throws. */
export function attach(fd: number): Socket {
  // Undocumented, and what `pauseOnConnect` of a server does to its sockets.
  const paused = { pauseOnCreate: true };
  try {
    return new Socket({ fd, allowHalfOpen: true, ...paused });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Closes a duplicate that nobody has attached, or whose thread has ended and may have closed it. */
export function discard({ fd, inode }: Duplicate): void {
  try {
    if (fstatSync(fd).ino === inode) closeSync(fd);
  } catch {
    // It is closed already.
  }
}
