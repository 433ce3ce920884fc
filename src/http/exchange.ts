// One request from its head to its record: read -> judged -> forwarded -> answered.

import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { ErrorCode } from '../errors.ts';
import type { ForwardClientCertMode } from '../policy/forward-client-cert.ts';
import type { Caller } from './caller.ts';
import { exchangeRecord } from './exchange-record.ts';
import { type IncomingRequest, readRequest } from './incoming-request.ts';
import type { HeaderField } from './message-headers.ts';
import { outgoingRequest } from './outgoing-request.ts';
import { RequestForwarding } from './request-forwarding.ts';

/** What is the same for every request of a sidecar. */
export interface ExchangeSettings {
  readonly mode: ForwardClientCertMode;
  /** Nothing more is wanted: the sidecar is stopping. */
  readonly isDraining: () => boolean;
  readonly now: () => number;
  /** How long one direction of a WebSocket may stay open without a byte after the other has ended. */
  readonly halfCloseTimeoutMs: number;
}

/** A refusal of ours. The caller hears the status, `text` and `fields`; `reason` is for the log. */
export interface Refused {
  readonly status: number;
  readonly code: ErrorCode;
  readonly reason: string;
  readonly fields: readonly HeaderField[];
}

/** What a request was read and judged to be. */
export type Admission =
  | { readonly request: IncomingRequest; readonly outgoing: Exclude<ReturnType<typeof outgoingRequest>, { bad: unknown }> }
  | { readonly request: IncomingRequest | undefined; readonly refused: Refused };

/** Reads and judges a request; nothing of it has gone anywhere yet. */
export function admit(message: IncomingMessage, of: { caller: Caller; settings: ExchangeSettings; expectsContinue: boolean }): Admission {
  const { connection } = of.caller;
  const request = readRequest(message, { ...of, authority: connection.authority });
  if ('bad' in request) return { request: undefined, refused: { ...request.bad, code: 'REQUEST_INVALID', fields: [] } };
  const verdict = connection.judge(request);
  if (!verdict.allowed) return { request, refused: verdict };
  const outgoing = outgoingRequest(request, { verdict, connection, mode: of.settings.mode });
  if ('bad' in outgoing) return { request, refused: { ...outgoing.bad, code: 'REQUEST_INVALID', fields: [] } };
  return { request, outgoing };
}

/** Resolves when the answer has left, or will not any more. Never rejects. */
export async function exchange(
  message: IncomingMessage,
  response: ServerResponse,
  of: {
    caller: Caller;
    settings: ExchangeSettings;
    expectsContinue: boolean;
    forward: (forwarding: RequestForwarding) => void;
  },
): Promise<void> {
  const { caller, settings } = of;
  const { connection, agent } = caller;
  // Asked for by the caller, or by HTTP/1.0.
  if (!response.shouldKeepAlive) caller.takeNoMore();
  const end = exchangeRecord(caller, settings.now);

  const admission = admit(message, of);
  const { request } = admission;
  if ('refused' in admission) {
    const { refused } = admission;
    // Whoever waits for a 100 does not send its body now, and whoever is not understood may mean anything by what follows.
    const isLast = of.expectsContinue || request === undefined || settings.isDraining();
    if (isLast) caller.takeNoMore();
    await refuse(response, refused, isLast);
    end({
      request,
      status: refused.status,
      decision: 'refused',
      outcome: response.writableFinished ? 'answered' : 'aborted',
      code: refused.code,
      reason: refused.reason,
    });
    return;
  }
  const forwarding = new RequestForwarding(message, response, {
    outgoing: admission.outgoing,
    agent,
    isLast: settings.isDraining,
    onLast: () => caller.takeNoMore(),
    abort: () => connection.abort(),
  });
  if (response.destroyed) end({ request, status: undefined, decision: 'allowed', outcome: 'aborted' });
  else {
    of.forward(forwarding);
    await forwarding.over;
    const { failure } = forwarding;
    end({
      request,
      status: response.headersSent ? response.statusCode : undefined,
      decision: failure === undefined ? 'allowed' : 'failed',
      outcome: response.writableFinished ? 'answered' : 'aborted',
      ...failure,
    });
  }
}

async function refuse(response: ServerResponse, { status, code, fields }: Refused, isLast: boolean): Promise<void> {
  if (response.destroyed) return;
  const body = refusalText(code);
  const own = ['content-type', 'text/plain', 'content-length', String(Buffer.byteLength(body))];
  const { promise, resolve } = Promise.withResolvers<void>();
  response.once('close', () => resolve());
  response.writeHead(status, STATUS_CODES[status], [...own, ...fields.flat(), ...(isLast ? ['connection', 'close'] : [])]);
  response.end(body);
  await promise;
}

/** Istio's words for 403, which people search for. */
export function refusalText(code: ErrorCode): string {
  switch (code) {
    case 'AUTHORIZATION_DENIED':
      return 'RBAC: access denied';
    case 'REQUEST_INVALID':
      return 'bad request';
    default:
      return 'refused';
  }
}
