// Whether a request may be looked at: from the pod itself, meant for this port, sent by a program and not by a page or a proxy. Pure.

import type { IncomingMessage } from 'node:http';
import { askedLocally } from '../observe/asked-locally.ts';
import { type Reply, refused } from './reply.ts';

/** Proves that whoever asks could choose its headers, which pages and programs that only forward cannot: as the SPIFFE Workload API asks it. */
export const GUARD_HEADER = 'workload.spiffe.io';
/** A proxy has put them there: it asks for somebody else, who need not be in the pod. */
const FORWARDED = ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip'];
/** The names that are loopback's whoever is asked: any other may be pointed to us by whoever owns it (DNS rebinding). */
const LOOPBACK = /^(?:127\.0\.0\.1|localhost|\[::1\])(?::(\d{1,5}))?$/i;

export type Asked = Pick<IncomingMessage, 'headers' | 'rawHeaders'> & { readonly socket: { readonly remoteAddress?: string | undefined } };

/** `port` is the one that was asked. Undefined where there is nothing against it. */
export function objectionTo({ headers, rawHeaders, socket }: Asked, port: number): Reply | undefined {
  if (!askedLocally(socket.remoteAddress)) return refused(403, 'NOT_FROM_POD', 'only the pod itself is answered');
  const passedOn = isPassedOn(headers);
  if (passedOn !== undefined) return passedOn;
  const hosts = rawHeaders.filter((name, index) => index % 2 === 0 && name.toLowerCase() === 'host');
  const [, named] = (hosts.length === 1 ? LOOPBACK.exec(headers.host ?? '') : undefined) ?? [undefined, 'none'];
  if (Number(named ?? 80) !== port) return refused(403, 'HOST_REFUSED', `the Host is not loopback: ask http://127.0.0.1:${port}`);
  return undefined;
}

/** Sent by somebody in whose name another asks. */
export function isPassedOn(headers: IncomingMessage['headers']): Reply | undefined {
  const forwarded = FORWARDED.find((name) => headers[name] !== undefined);
  if (forwarded !== undefined) return refused(403, 'FORWARDED', `the request was forwarded (${forwarded}): ask directly`);
  return headers.origin === undefined ? undefined : refused(403, 'FROM_A_PAGE', 'pages of browsers are not answered (origin)');
}

/** For what is not everybody's to have. */
export function lacksGuardHeader({ headers }: Asked): Reply | undefined {
  if (headers[GUARD_HEADER] === 'true') return undefined;
  return refused(403, 'HEADER_MISSING', `send the header ${GUARD_HEADER}: true`);
}
