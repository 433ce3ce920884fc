// What Node keeps of a socket on an undocumented handle, its file descriptor for one: this is the one place that reads the handle itself.

import type { Socket } from 'node:net';

/** Undefined for a socket that is closed. */
export function handleOf(socket: Socket): object | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  return typeof handle === 'object' && handle !== null ? handle : undefined;
}

/** Undefined for a socket that is closed, or is no connection of this process. */
export function descriptorOf(socket: Socket): number | undefined {
  const handle = handleOf(socket);
  const fd: unknown = handle === undefined ? undefined : Reflect.get(handle, 'fd');
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}
