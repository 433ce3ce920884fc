// What of a ledger is believed, by the agent of its sidecar and by control of its agent: only what could be so.

import { isIP } from 'node:net';
import { parseSpiffeId, workloadOf } from '../spiffe/spiffe-id.ts';
import type { LedgerEntry, LedgerReport, Totals } from '../wire/gen/handfast/report/v1/report.ts';

/** An ID may have 2,048 bytes, but none that we issue has more than this. */
const MAX_ID_LENGTH = 640;
const POD = /^([a-z0-9-]{1,63})\/[a-z0-9.-]{1,253}$/;
/** Names that the registry took, of endpoints outside the mesh too; no character of them may part keys. */
const WORKLOAD = /^[a-z0-9-]{1,63}\/[\x21-\x7e]{1,253}$/;
const SERVICE = /^[a-z0-9-]{1,63}\/[a-zA-Z0-9.*_-]{1,253}$/;
const INSTANCE = /^[0-9a-f-]{36}$/;
const CODE = /^[A-Z_]{0,64}$/;
const DIRECTIONS: readonly string[] = ['inbound', 'outbound'];
const TRANSPORTS: readonly string[] = ['mtls', 'tls', 'plaintext', 'passthrough-tls', 'unknown'];
const OUTCOMES: readonly string[] = ['allowed', 'refused', 'failed', 'cut'];
/** The clocks of a node and of control. */
const CLOCK_SKEW_MS = 300_000;
/** 2020: nothing of ours has observed before. */
const EARLIEST_MS = 1_577_836_800_000;

/** Whether a report's own fields could be so: a pod of its reporter's own namespace, whose run it is, and since when. */
export function isPlausibleReport(report: LedgerReport, now: number): boolean {
  const { pod, reporter, instance, observedSince } = report;
  if (reporter === '' || !isIdOrNone(reporter)) return false;
  const namespace = POD.exec(pod)?.[1];
  if (namespace === undefined || namespace !== workloadOf(parseSpiffeId(reporter))?.namespace) return false;
  return INSTANCE.test(instance) && isTime(observedSince, now) && [report.inboundTotals, report.outboundTotals].every(isTotalsOrNone);
}

export function isPlausibleEntry(entry: LedgerEntry, now: number): boolean {
  const { direction, transport, outcome, port, firstSeen, lastSeen, connections, open } = entry;
  return (
    DIRECTIONS.includes(direction) &&
    TRANSPORTS.includes(transport) &&
    OUTCOMES.includes(outcome) &&
    port <= 65_535 &&
    isTime(firstSeen, now) &&
    isTime(lastSeen, now) &&
    firstSeen <= lastSeen &&
    connections >= 1 &&
    open <= connections &&
    [entry.peerAddress, entry.ownAddress].every(isAddressOrNone) &&
    [entry.peerId, entry.peerRegisteredId].every(isIdOrNone) &&
    // Only a handshake proves anything.
    (entry.peerId === '' || transport === 'mtls' || transport === 'tls') &&
    (entry.peerWorkload === '' || WORKLOAD.test(entry.peerWorkload)) &&
    (entry.service === '' || SERVICE.test(entry.service)) &&
    [entry.code, entry.shadowCode].every((code) => CODE.test(code))
  );
}

/** There may be more failures than connections: what was joined in one message is cut in the next. */
function isTotalsOrNone(totals: Totals | undefined): boolean {
  return totals === undefined || [totals.connections, totals.failures].every((count) => Number.isSafeInteger(count) && count >= 0);
}

function isTime(ms: number, now: number): boolean {
  return ms >= EARLIEST_MS && ms <= now + CLOCK_SKEW_MS;
}

function isAddressOrNone(text: string): boolean {
  return text === '' || isIP(text) !== 0;
}

function isIdOrNone(text: string): boolean {
  if (text === '') return true;
  if (text.length > MAX_ID_LENGTH) return false;
  try {
    parseSpiffeId(text);
    return true;
  } catch {
    return false;
  }
}
