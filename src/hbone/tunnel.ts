// A session that takes streams, what it was made for, and which of several takes the next one.

import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import type { ClientSession, ClientSessionOptions } from './client-session.ts';

/** Whose tunnel, with which identity, to whom. */
export interface TunnelTarget {
  /** The workload that asks: one process may speak for several. */
  readonly source: string;
  readonly identity: Identity;
  readonly revocations: RevocationList;
  /** SPIFFE IDs the peer may prove. */
  readonly allowed: readonly string[];
  readonly address: string;
  /** In words, for errors. */
  readonly destination: string;
}

/** A handshake's result: an mTLS connection with `h2`, its peer verified against `allowed`. */
export interface Dialled {
  readonly socket: ClientSessionOptions['socket'];
  readonly peer: VerifiedPeer;
}

export interface Tunnel {
  readonly session: ClientSession;
  readonly peer: VerifiedPeer;
  readonly identity: Identity;
}

/** Of those that take another stream, one that is not held up, with the fewest streams. */
export function leastBusy(tunnels: ReadonlySet<Tunnel>): Tunnel | undefined {
  let best: Tunnel | undefined;
  for (const tunnel of tunnels) {
    const { session } = tunnel;
    if (!session.available) continue;
    if (best === undefined || isLessBusy(session, best.session)) best = tunnel;
  }
  return best;
}

function isLessBusy(a: ClientSession, b: ClientSession): boolean {
  return a.saturated === b.saturated ? a.streams.size < b.streams.size : b.saturated;
}
