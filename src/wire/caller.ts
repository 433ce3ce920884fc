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

const callers = new Map<string, Caller>();

/**
 * From here on `callerOf` knows the connection, until it is closed. grpc-js tells handlers nothing of a connection but its remote address,
 * so that is what carries the name: a random one for each connection, which no peer has a say in.
 */
export function rememberCaller(socket: Socket, caller: Caller): void {
  const name = `caller:${randomUUID()}`;
  Object.defineProperty(socket, 'remoteAddress', { value: name });
  Object.defineProperty(socket, 'remotePort', { value: undefined });
  callers.set(name, caller);
  socket.once('close', () => callers.delete(name));
}

/** Undefined for a connection that did not come through a listener of ours, or is closed. Ask when the call begins. */
export function callerOf(call: { getPeer(): string }): Caller | undefined {
  return callers.get(call.getPeer());
}

/** What limits count by: one user in one network namespace, one SPIFFE ID, or one address. */
export function callerKey(caller: Caller): string {
  if (caller.kind === 'tls') return caller.peer.id.uri;
  if (caller.kind === 'anonymous') return caller.address;
  return `uid ${caller.peer.uid} in network namespace ${caller.peer.networkNamespace}`;
}

/** How many open connections are known by their callers. */
export function rememberedCallers(): number {
  return callers.size;
}
