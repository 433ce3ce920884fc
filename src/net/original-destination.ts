// Where a redirected connection was going, asked of the kernel: SO_ORIGINAL_DST, kept by netfilter's connection tracking.

import type { Socket } from 'node:net';
import { Address6 } from 'ip-address';
import { descriptorOf } from './descriptor.ts';
import { getsockopt } from './libc.ts';

const SOL_IP = 0;
const SOL_IPV6 = 41;
/** Same number for both families (linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h). */
const SO_ORIGINAL_DST = 80;

/** Canonical IP text and port, or undefined where the kernel knows of no redirection. */
export interface Destination {
  readonly address: string;
  readonly port: number;
}

/** One call at a time, so one pair of buffers. */
const value = Buffer.alloc(28);
const length = new Uint32Array(1);

/** Undefined when the connection was not redirected, or the kernel has lost track of it. Never guesses. */
export function originalDestination(socket: Socket): Destination | undefined {
  const fd = descriptorOf(socket);
  if (fd === undefined) return undefined;
  // On a dual-stack listener an IPv4 peer shows as ::ffff:a.b.c.d and is tracked as IPv4.
  const v4 = socket.remoteFamily === 'IPv4' || socket.remoteAddress?.startsWith('::ffff:') === true;
  length[0] = v4 ? 16 : 28;
  if (getsockopt(fd, v4 ? SOL_IP : SOL_IPV6, SO_ORIGINAL_DST, value, length) !== 0) return undefined;
  const port = value.readUInt16BE(2);
  const address = v4
    ? `${value[4]}.${value[5]}.${value[6]}.${value[7]}`
    : Address6.fromUnsignedByteArray([...value.subarray(8, 24)]).correctForm();
  return { address, port };
}
