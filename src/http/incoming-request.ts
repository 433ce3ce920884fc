// A request as it is judged and as it goes on: one value that both read, so that nothing reaches the application which the verdict did not see. What could be read in two ways is refused.

import type { IncomingMessage } from 'node:http';
import { type RequestPath, readPath } from '../policy/request-path.ts';
import { isForwardedClientCert } from './forwarded-client-cert.ts';
import { endToEnd, fieldsOf, type HeaderField, plainName, tokensOf, valuesOf } from './message-headers.ts';
import { REQUEST_ID, requestIdOf } from './request-id.ts';

/** How the body is framed: `length` as it was written. */
export type Framing = 'none' | 'chunked' | { readonly length: string };

export interface IncomingRequest {
  readonly id: string;
  readonly method: string;
  /** The path in all its readings; `path.forward` with the query is what the application gets. */
  readonly path: RequestPath;
  /** The Host header, or the authority of an absolute target. Empty where HTTP/1.0 brought none. */
  readonly host: string;
  /** All that goes on, but for `host`, framing, x-request-id and x-forwarded-client-cert, which are written anew. */
  readonly fields: readonly HeaderField[];
  /** What came as x-forwarded-client-cert. */
  readonly forwardedClientCert: readonly string[];
  readonly framing: Framing;
  readonly expectsContinue: boolean;
  readonly takesTrailers: boolean;
  /** What a header was, by its name in lower case, whether it goes on or not. */
  readonly came: (name: string) => readonly string[];
  /** The same of all names that many frameworks take for it. */
  readonly alike: (name: string) => readonly string[];
}

/** Nobody's fault but the caller's. */
export interface BadRequest {
  readonly status: 400 | 414 | 417 | 431 | 501 | 505;
  readonly reason: string;
}

/** Envoy takes 100. Beyond it applications begin to drop some, and then they read another request than we do. */
export const MAX_FIELDS = 200;

/** Of a path, without its query: it is read in many ways, each of which costs what it is long. */
const MAX_PATH = 8 * 1024;

/** A name or an address, and a port. Whatever else RFC 3986 lets stand there, somebody reads as something else. */
const HOST = /^(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?$/;

/** Written anew, each by who knows better. */
const WRITTEN_ANEW: ReadonlySet<string> = new Set(['host', 'content-length', 'expect', REQUEST_ID]);

export function readRequest(
  message: IncomingMessage,
  { expectsContinue, authority }: { expectsContinue: boolean; authority: string },
): IncomingRequest | { readonly bad: BadRequest } {
  const all = fieldsOf(message.rawHeaders);
  if (all.length > MAX_FIELDS) return bad(431, `more than ${MAX_FIELDS} header fields`);
  if (message.httpVersion !== '1.1' && message.httpVersion !== '1.0') return bad(505, `HTTP/${message.httpVersion} on a port of HTTP/1.1`);
  if (valuesOf(all, 'expect').some((value) => value.toLowerCase() !== '100-continue')) return bad(417, 'an Expect other than 100-continue');
  const framing = framingOf(message, all);
  if (typeof framing === 'object' && 'bad' in framing) return framing;
  const hosts = valuesOf(all, 'host');
  if (hosts.length > 1) return bad(400, `${hosts.length} Host fields`);
  if (hosts.length === 0 && message.httpVersion === '1.1') return bad(400, 'no Host field');
  const target = message.url ?? '';
  if ((target.indexOf('?') < 0 ? target.length : target.indexOf('?')) > MAX_PATH) return bad(414, `a path of more than ${MAX_PATH} bytes`);
  const path = readPath(target, { method: message.method ?? '' });
  if ('refusal' in path) return bad(400, path.refusal);
  // HTTP/1.0 may name none: then it is the address that was dialled.
  const host = path.authority ?? hosts[0] ?? authority;
  if (path.authority !== undefined && hosts[0] !== undefined && hosts[0].toLowerCase() !== path.authority.toLowerCase())
    return bad(400, 'the target names another host than the Host field');
  if (!HOST.test(host)) return bad(400, 'the host is none');
  const fields = endToEnd(all).filter(([field]) => {
    return !WRITTEN_ANEW.has(plainName(field)) && !isForwardedClientCert(field);
  });
  return {
    id: requestIdOf(valuesOf(all, REQUEST_ID)),
    method: message.method ?? '',
    path,
    host,
    fields,
    forwardedClientCert: all.filter(([field]) => isForwardedClientCert(field)).map(([, value]) => value),
    framing,
    expectsContinue,
    takesTrailers: tokensOf(all, 'te').includes('trailers'),
    came: (name) => valuesOf(all, name),
    alike: (name) => all.filter(([field]) => plainName(field) === plainName(name)).map(([, value]) => value),
  };
}

/** Node's parser has refused both at once, and several lengths. */
function framingOf({ httpVersion }: IncomingMessage, fields: readonly HeaderField[]): Framing | { readonly bad: BadRequest } {
  const codings = valuesOf(fields, 'transfer-encoding');
  const lengths = valuesOf(fields, 'content-length');
  if (codings.length > 0) {
    if (httpVersion !== '1.1') return bad(400, 'Transfer-Encoding in HTTP/1.0');
    if (lengths.length > 0) return bad(400, 'both Content-Length and Transfer-Encoding');
    if (codings.length > 1 || codings[0]?.toLowerCase() !== 'chunked') return bad(501, 'a Transfer-Encoding other than chunked');
    return 'chunked';
  }
  if (lengths.length === 0) return 'none';
  const [length = ''] = lengths;
  if (lengths.length > 1 || !/^\d{1,15}$/.test(length)) return bad(400, 'a Content-Length that is no number');
  return { length };
}

function bad(status: BadRequest['status'], reason: string): { readonly bad: BadRequest } {
  return { bad: { status, reason } };
}
