// What the application gets of a request that may pass: what came, without what only we may say, and what we say of the caller.

import type { ForwardClientCertMode } from '../policy/forward-client-cert.ts';
import { FORWARDED_CLIENT_CERT, forwardedClientCert } from './forwarded-client-cert.ts';
import type { HttpConnection, RequestVerdict } from './http-connection.ts';
import type { BadRequest, IncomingRequest } from './incoming-request.ts';
import { type HeaderField, plainName } from './message-headers.ts';
import type { Outgoing } from './request-forwarding.ts';
import { REQUEST_ID } from './request-id.ts';

export function outgoingRequest(
  request: IncomingRequest,
  of: { verdict: Extract<RequestVerdict, { allowed: true }>; connection: HttpConnection; mode: ForwardClientCertMode },
): Outgoing | { readonly bad: BadRequest } {
  const { verdict, connection, mode } = of;
  const certificate = forwardedClientCert(request.forwardedClientCert, { mode, from: connection.from });
  if ('refusal' in certificate)
    return certificate.refusal === 'too-long'
      ? { bad: { status: 431, reason: `${FORWARDED_CLIENT_CERT} is too long` } }
      : { bad: { status: 400, reason: `${FORWARDED_CLIENT_CERT} is malformed` } };
  const fields: HeaderField[] = [['host', request.host]];
  const removed = new Set(verdict.remove.map(plainName));
  for (const field of request.fields) if (removed.size === 0 || !removed.has(plainName(field[0]))) fields.push(field);
  fields.push(...verdict.add, [REQUEST_ID, request.id]);
  if (certificate.value !== undefined) fields.push([FORWARDED_CLIENT_CERT, certificate.value]);
  const query = verdict.query ?? request.path.query;
  const reserved = new Set([...removed, ...verdict.add.map(([name]) => plainName(name)), FORWARDED_CLIENT_CERT, REQUEST_ID]);
  return { request, target: request.path.forward + query, fields, reserved };
}
