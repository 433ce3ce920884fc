// What a request leaves behind, beside its connection's record: who asked for what, the answer, the decision and the reason. No query and no header: they may be secrets.

import type { RequestEnd } from '../http/http-connection.ts';
import type { Verdict } from '../policy/verdict.ts';
import type { Known } from './connection.ts';
import { show } from './connection-record.ts';

/** A path may be as long as its caller likes. */
const MAX_SHOWN = 512;

/** Fields that are undefined are left out of the log line. */
export function requestRecord(known: Known, end: RequestEnd, shadow: Verdict | undefined): object {
  const { request, ...ending } = end;
  return {
    direction: known.direction,
    connection: known.id,
    request: request?.id,
    method: request?.method,
    host: request?.host,
    path: shown(request?.path.forward),
    downstream: { address: show(known.downstream), spiffeId: known.peer?.id.uri },
    upstream: { address: show(known.upstream), spiffeId: known.ownId },
    transport: known.transport,
    ...ending,
    shadow: shadow?.allowed === false ? { code: shadow.code, reason: shadow.reason } : undefined,
  };
}

function shown(text: string | undefined): string | undefined {
  return text === undefined || text.length <= MAX_SHOWN ? text : `${text.slice(0, MAX_SHOWN)}…`;
}
