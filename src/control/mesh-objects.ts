// What control resolves from: parsed objects, each with the place it came from. Files fill it today; any ObjectSource may.

import type { MeshConfig } from '../policy/kinds/mesh-config.ts';
import type { Pod } from '../policy/kinds/pod.ts';
import type { ServiceObject } from '../policy/kinds/service.ts';
import type { PeerAuthentication } from '../policy/peer-authentication.ts';
import type { Snapshot } from '../snapshot.ts';

export interface MeshObjects {
  readonly config: MeshConfig;
  readonly peerAuthentications: readonly PeerAuthentication[];
  readonly pods: readonly Pod[];
  readonly services: readonly ServiceObject[];
}

/** Whoever knows the objects. Only whole, valid sets are published; a bad change leaves the last good set in place. */
export interface ObjectSource {
  readonly objects: Snapshot<MeshObjects>;
}
