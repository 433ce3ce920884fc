// Large pieces for one socket that come in one turn of the event loop leave in one write: a write to a socket costs as much for 16 KB as for 64.

import type { Socket } from 'node:net';

/** As much may wait for the end of the turn, where libuv reads a busy session over and over. */
const ENOUGH_BYTES = 64 * 1024;

let gathering: Socket[] = [];

/** What is written to the socket from now on leaves at the end of this turn, or when it is enough. */
export function gather(socket: Socket): void {
  if (socket.writableCorked > 0) {
    if (socket.writableLength < ENOUGH_BYTES) return;
    // Goes on behind it.
    socket.uncork();
    socket.cork();
    return;
  }
  // What waits for the network already leaves when that is ready, all of it at once.
  if (socket.writableLength > 0) return;
  socket.cork();
  if (gathering.push(socket) === 1) setImmediate(release);
}

function release(): void {
  const sockets = gathering;
  gathering = [];
  for (const socket of sockets) socket.uncork();
}
