// What a connection leaves behind: one record with both identities, the mode and its source, the decision, and the reason.

import type { ByteCounts } from '../http/application-agent.ts';
import { endpointText } from '../policy/ip.ts';
import type { Endpoint } from '../policy/model.ts';
import type { Known } from './connection.ts';
import type { Ending } from './tracked.ts';

/** `now` in Unix milliseconds. Fields that are undefined are left out of the log line. */
export function connectionRecord(known: Known, of: { ending: Ending; application: ByteCounts | undefined; now: number }): object {
  const inbound = known.direction === 'inbound';
  const own = { spiffeId: known.ownId };
  const peer = { spiffeId: known.peer?.id.uri, serial: known.peer?.serial };
  return {
    direction: known.direction,
    connection: known.id,
    downstream: { address: show(known.downstream), ...(inbound ? peer : own) },
    upstream: { address: show(known.upstream), service: known.service, ...(inbound ? own : peer) },
    originalDestination: show(known.originalDestination),
    mode: known.tlsSwitch?.mode ?? known.mode,
    modeSource: known.tlsSwitch?.source,
    transport: known.transport,
    tunnel: known.tunnel,
    ...of.ending,
    shadow: known.shadow?.allowed === false ? { code: known.shadow.code, reason: known.shadow.reason } : undefined,
    // Seen from the application: what it was sent, what it sent.
    bytesToApplication: of.application?.bytesWritten ?? 0,
    bytesFromApplication: of.application?.bytesRead ?? 0,
    durationMs: of.now - known.openedAt,
  };
}

/** `10.0.0.1:80` or `[fd00::1]:80`. */
export function show(endpoint: Endpoint): string;
export function show(endpoint: Endpoint | undefined): string | undefined;
export function show(endpoint: Endpoint | undefined): string | undefined {
  return endpoint === undefined ? undefined : endpointText(endpoint);
}
