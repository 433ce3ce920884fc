// Entries of many ledgers put together for people: one line a client and port, however many of its connections and of our pods there were.

import type { LedgerEntry } from '../../observe/ledger-entry.ts';

/** `client`: the pod registered at the address, or the bare address. Times in Unix milliseconds. */
export interface Conversation {
  readonly client: string;
  /** Proven, or registered at the address, or empty: in this order. */
  readonly clientId: string;
  readonly servers: readonly string[];
  readonly port: number;
  readonly transport: string;
  readonly connections: number;
  readonly open: number;
  readonly firstSeen: number;
  readonly lastSeen: number;
  readonly tripwire: boolean;
}

/** `extra` is what else must be equal, and comes back with each. */
export function conversations<T extends object>(
  inbound: readonly { readonly server: string; readonly entry: LedgerEntry; readonly extra: T }[],
): (Conversation & T)[] {
  const merged = new Map<string, Conversation & T>();
  for (const { server, entry, extra } of inbound) {
    const { port, transport, connections, open, firstSeen, lastSeen, tripwire } = entry;
    const client = entry.peerWorkload || entry.peerAddress;
    const clientId = entry.peerId || entry.peerRegisteredId;
    const key = JSON.stringify([client, clientId, port, transport, extra]);
    const one = { ...extra, client, clientId, servers: [server], port, transport, connections, open, firstSeen, lastSeen, tripwire };
    const before = merged.get(key);
    merged.set(key, before === undefined ? one : { ...one, ...both(before, one) });
  }
  return [...merged.values()].sort((a, b) => b.lastSeen - a.lastSeen);
}

function both(a: Conversation, b: Conversation): Omit<Conversation, 'client' | 'clientId' | 'port' | 'transport'> {
  return {
    servers: [...new Set([...a.servers, ...b.servers])].sort(),
    connections: a.connections + b.connections,
    open: a.open + b.open,
    firstSeen: Math.min(a.firstSeen, b.firstSeen),
    lastSeen: Math.max(a.lastSeen, b.lastSeen),
    tripwire: a.tripwire || b.tripwire,
  };
}
