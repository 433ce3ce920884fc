// A TCP socket with a source address and no source port yet. A plain bind(2) takes a port that nobody uses for anything: with thousands of connections a second from one address
// that is a long search, and then none is left, though each would only have to differ in its four-tuple (IP_BIND_ADDRESS_NO_PORT, ip(7)).

import { closeSync } from 'node:fs';
import { isIPv6, type Socket } from 'node:net';
import { Address6 } from 'ip-address';
import { handleOf } from './descriptor.ts';
import { libc } from './libc.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_IP = 0;
const IP_BIND_ADDRESS_NO_PORT = 24;

const socket = libc.func('int socket(int domain, int type, int protocol)');
const setsockopt = libc.func('int setsockopt(int fd, int level, int name, void *value, uint32_t length)');
const bind = libc.func('int bind(int fd, void *address, uint32_t length)');

const ON = new Int32Array([1]);

/** Gives a socket that is about to connect its source address, before it does. False when that is not possible here: then the usual way is left. */
export function bindSource(connecting: Socket, address: string): boolean {
  const handle = handleOf(connecting);
  const open: unknown = handle === undefined ? undefined : Reflect.get(handle, 'open');
  if (typeof open !== 'function') return false;
  const name = socketAddress(address);
  const fd = socket(name.length === 16 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  if (
    setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, ON, 4) === 0 &&
    bind(fd, name, name.length) === 0 &&
    Reflect.apply(open, handle, [fd]) === 0
  )
    return true;
  closeSync(fd);
  return false;
}

const known = new Map<string, Buffer>();

/** sockaddr_in or sockaddr_in6, with port 0. There are two source addresses in a sidecar's life. */
function socketAddress(address: string): Buffer {
  const made = known.get(address);
  if (made !== undefined) return made;
  const v6 = isIPv6(address);
  const bytes = Buffer.alloc(v6 ? 28 : 16);
  bytes.writeUInt16LE(v6 ? AF_INET6 : AF_INET, 0);
  if (v6) {
    const raw = new Address6(address).toUnsignedByteArray();
    Buffer.from(raw).copy(bytes, 8 + 16 - raw.length);
  } else Buffer.from(address.split('.').map(Number)).copy(bytes, 4);
  known.set(address, bytes);
  return bytes;
}
