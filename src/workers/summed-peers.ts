// The live peers of several workers as one list.

import type { LivePeers } from './messages.ts';

export function summed(all: readonly LivePeers[]): LivePeers {
  const byPeer = new Map<string, LivePeers[number]>();
  for (const peer of all.flat()) {
    const key = `${peer.direction} ${peer.serial} ${peer.spiffeId}`;
    const connections = (byPeer.get(key)?.connections ?? 0) + peer.connections;
    byPeer.set(key, { ...peer, connections });
  }
  return [...byPeer.values()];
}
