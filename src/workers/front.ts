// The two listeners that workers do not share: tunnels, which are dealt out, and readiness, which speaks for all.

import type { Socket } from 'node:net';
import { HandfastError, messageOf } from '../errors.ts';
import { type Listener, listen } from '../net/listener.ts';
import type { HttpListener } from '../observe/listen-http.ts';
import { serveReadiness } from '../observe/readiness.ts';

export interface FrontOptions {
  readonly ports: { readonly tunnel: number; readonly readiness: number };
  readonly onTunnel: (socket: Socket) => void;
  readonly missing: () => readonly string[];
  readonly warnings: () => readonly string[];
  readonly onError: (error: Error) => void;
}

export interface Front {
  readonly tunnel: Listener;
  readonly readiness: HttpListener;
}

/** Throws CONFIG_INVALID for a port in use: a second sidecar on this machine is refused here, because the workers' own ports can be shared. */
export async function openFront({ ports, onTunnel, missing, warnings, onError }: FrontOptions): Promise<Front> {
  const tunnel = await opening('tunnels', listen({ port: ports.tunnel, onConnection: onTunnel, onError }));
  try {
    const readiness = await opening('readiness', serveReadiness({ port: ports.readiness, missing, warnings, onError }));
    return { tunnel, readiness };
  } catch (error) {
    await tunnel.close();
    throw error;
  }
}

async function opening<T>(what: string, opened: Promise<T>): Promise<T> {
  return opened.catch((cause) => {
    throw new HandfastError('CONFIG_INVALID', `cannot listen for ${what}: ${messageOf(cause)}`, { cause });
  });
}
