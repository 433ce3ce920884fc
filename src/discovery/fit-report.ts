// A report of connections cut to what one gRPC message holds: a report that does not fit would never arrive, and say nothing of anybody.

import { type ConnectionReport, LivePeer } from '../wire/gen/handfast/report/v1/report.ts';

/** Well below the 4 MiB that our servers take. */
const MAX_BYTES = 2 * 1024 * 1024;
/** Tag and length of one entry. */
const OVERHEAD_BYTES = 6;

/** The part of a report that is about connections. */
export type Connections = Pick<ConnectionReport, 'peers' | 'truncated'>;

/** The first entries, as many as fit; the rest is left out and marked so. */
export function fitReport(report: Connections, maxBytes = MAX_BYTES): Connections {
  let bytes = 0;
  const end = report.peers.findIndex((peer) => {
    bytes += LivePeer.encode(peer).finish().length + OVERHEAD_BYTES;
    return bytes > maxBytes;
  });
  return end === -1 ? report : { peers: report.peers.slice(0, end), truncated: true };
}
