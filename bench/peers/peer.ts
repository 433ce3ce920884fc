// What a peer is to the bench: two command lines that do a sidecar's work, serving (mTLS to plain) and dialing (plain to mTLS). Settings
// that cost or save time are the same for all and for us: TLS 1.3, one group, whole chains, certificates verified both ways.

import type { Credentials } from '../certificates.ts';
import type { Group } from '../client-tls.ts';
import type { PeerName } from '../scenario.ts';

/** Where a serving proxy accepts mTLS, and where a dialing one accepts the application's plaintext. */
export const servingPort = 15006;
export const dialingPort = 15001;
/** Where tunnels are taken, whoever takes them. */
export const HBONE_PORT = 15008;

export interface Launch {
  /** Written to the file that `command` names, when there is one. */
  readonly config?: string;
  readonly command: readonly string[];
}

export interface Place {
  readonly credentials: Credentials;
  /** Where `config` will be; its folder may be written to. */
  readonly configFile: string;
  readonly group: Group;
}

export interface Peer {
  readonly name: PeerName;
  readonly version: string;
  /** Why it cannot do X25519MLKEM768. */
  readonly withoutPq?: string;
  /** It serves tunnels, on HBONE_PORT, and nothing else. */
  readonly tunnels?: true;
  serving(place: Place): Launch;
  /** `to` is the serving pod's address. Absent where a peer only serves. */
  dialing?(place: Place & { to: string }): Launch;
}
