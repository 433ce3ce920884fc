// Who calls a gRPC method, told by the connection it came over: never by anything that the caller sent.

import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import type { PeerCredentials } from '../net/peer-credentials.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';

/** `anonymous`: over TLS, but without a certificate of its own. */
export type Caller =
  | { readonly kind: 'unix'; readonly peer: PeerCredentials }
  | { readonly kind: 'tls'; readonly peer: VerifiedPeer }
  | { readonly kind: 'anonymous'; readonly address: string };

const callers = new Map<string, { readonly caller: Caller; readonly socket: Socket; readonly address: string | undefined }>();

/**
 * From here on `callerOf` knows the connection, until it is closed. grpc-js tells handlers nothing of a connection but its remote address,
 * so that is what carries the name: a random one for each connection, which no peer has a say in.
 */
export function rememberCaller(socket: Socket, caller: Caller): void {
  const name = `caller:${randomUUID()}`;
  const address = socket.remoteAddress;
  Object.defineProperty(socket, 'remoteAddress', { value: name });
  Object.defineProperty(socket, 'remotePort', { value: undefined });
  callers.set(name, { caller, socket, address });
  socket.once('close', () => callers.delete(name));
}

/** Undefined for a connection that did not come through a listener of ours, or is closed. Ask when the call begins. */
export function callerOf(call: { getPeer(): string }): Caller | undefined {
  return callers.get(call.getPeer())?.caller;
}

/** Of the same connection. */
export function addressOfCaller(call: { getPeer(): string }): string | undefined {
  return callers.get(call.getPeer())?.address;
}

/** Ends the connection that a call came over, if it came through a listener of ours. */
export function endConnectionOf(call: { getPeer(): string }): void {
  callers.get(call.getPeer())?.socket.destroy();
}

/** What limits count by: one user in one network namespace, one SPIFFE ID, or one address (of IPv6 the network: a host has all of its /64). */
export function callerKey(caller: Caller): string {
  if (caller.kind === 'tls') return caller.peer.id.uri;
  if (caller.kind === 'anonymous') return networkOf(caller.address);
  return `uid ${caller.peer.uid} in network namespace ${caller.peer.networkNamespace}`;
}

/** How many open connections are known by their callers. */
export function rememberedCallers(): number {
  return callers.size;
}

/** What one host may have of addresses: IPv4 as it is, mapped or not, and the first half of IPv6. */
export function networkOf(address: string | undefined): string {
  if (address === undefined) return 'unknown';
  const v4 = /^(?:::ffff:)?(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (v4 !== undefined || !address.includes(':')) return v4 ?? address;
  return `${expanded(address).slice(0, 4).join(':')}::/64`;
}

/** The eight groups of an IPv6 address. */
function expanded(address: string): string[] {
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::');
  const groups = (part: string) => (part === '' ? [] : part.split(':'));
  if (tail === undefined) return groups(head);
  const [left, right] = [groups(head), groups(tail)];
  return [...left, ...Array.from({ length: Math.max(0, 8 - left.length - right.length) }, () => '0'), ...right];
}
