// What is known of a connection at each step of its way. A step takes one of these and returns a richer one.

import type { OutboundTransport, Transport } from '../policy/decide.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Endpoint, TlsSwitch, TrafficPolicy, Workload } from '../policy/model.ts';
import type { Verdict } from '../policy/verdict.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';

export type Direction = 'inbound' | 'outbound';

/** Fresh from a listener, or from a tunnel. */
export interface Accepted {
  readonly id: number;
  readonly direction: Direction;
  readonly downstream: Endpoint;
  /** Unix milliseconds. */
  readonly openedAt: number;
}

/** Its original destination is known and is not ourselves. */
export interface Located extends Accepted {
  readonly originalDestination: Endpoint;
}

/** It has its one policy snapshot, and the workload whose sidecar this is. */
export interface Governed extends Located {
  readonly mesh: MeshSnapshot;
  readonly self: Workload;
  readonly policy: TrafficPolicy;
}

/** What a record can say. Filled as the connection proceeds; whatever is known when it ends is logged. */
export interface Known extends Accepted {
  readonly originalDestination?: Endpoint;
  readonly tlsSwitch?: TlsSwitch;
  /** How the mode was reached when no switch of ours decided: `not in the mesh`, `ALLOW_ANY`. */
  readonly mode?: string;
  readonly transport?: Transport | OutboundTransport;
  /** It is one stream of a tunnel's mTLS session. */
  readonly tunnel?: 'HBONE';
  readonly upstream?: Endpoint;
  readonly service?: string;
  /** Who the sidecar speaks for, and who the other side has proven to be. */
  readonly ownId?: string;
  readonly peer?: VerifiedPeer;
  /** What the registry has at the other side's address. No proof of who that is. */
  readonly registered?: Workload;
  /** What the registry has there is not known yet. */
  readonly isUnasked?: boolean;
  /** A refusal that what is in dry-run would have given. */
  readonly shadow?: Verdict;
}
