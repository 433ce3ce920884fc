// The file descriptor of a socket: Node keeps it on an undocumented handle, and this is the one place that reads it.

import type { Socket } from 'node:net';

/** Undefined for a socket that is closed, or is no connection of this process. */
export function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}
