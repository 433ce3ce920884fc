// What of a sidecar's report is believed: only what could be so, and of pods only those that may be its own.

import { parseSpiffeId, workloadOf } from '../spiffe/spiffe-id.ts';
import type { LivePeer } from '../wire/gen/handfast/report/v1/report.ts';
import type { Connections } from './fit-report.ts';

/** An ID may have 2,048 bytes, but none that we issue has more than this; and a thousand of them must leave room for others in one message. */
const MAX_ID_LENGTH = 640;
const POD = /^([a-z0-9-]{1,63})\/[a-z0-9.-]{1,253}$/;
/** RFC 5280: at most 20 octets; a sign of its own makes it 21. */
const SERIAL = /^[0-9A-F]{1,42}$/;
const DIRECTIONS: readonly string[] = ['inbound', 'outbound'];

/** What is dropped is missed: the answer is marked as truncated then. */
export function believedPeers({ peers, truncated }: Connections, { reporter, max }: { reporter: string; max: number }): Connections {
  const own = workloadOf(parseSpiffeId(reporter))?.namespace;
  const believed: LivePeer[] = [];
  for (const peer of peers) {
    // Also what comes after the last one that is taken costs us nothing.
    if (believed.length >= max) break;
    if (!isPlausible(peer)) continue;
    const namespace = POD.exec(peer.pod)?.[1];
    believed.push({ ...peer, reporter, pod: namespace !== undefined && namespace === own ? peer.pod : '' });
  }
  return { peers: believed, truncated: truncated || believed.length < peers.length };
}

function isPlausible({ spiffeId, serial, direction }: LivePeer): boolean {
  if (spiffeId.length > MAX_ID_LENGTH || !SERIAL.test(serial) || !DIRECTIONS.includes(direction)) return false;
  try {
    parseSpiffeId(spiffeId);
    return true;
  } catch {
    return false;
  }
}
