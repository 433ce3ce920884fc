// What control resolves from: parsed objects. An object that did not change keeps its identity from one set to the next. Files fill it today; any ObjectSource may.

import type { AuthorizationPolicy } from '../../policy/authorization-policy.ts';
import type { DestinationRule } from '../../policy/destination-rule.ts';
import type { RequestAuthentication } from '../../policy/jwt-rules.ts';
import type { EndpointSlice } from '../../policy/kinds/endpoint-slice.ts';
import type { MeshConfig } from '../../policy/kinds/mesh-config.ts';
import type { Pod } from '../../policy/kinds/pod.ts';
import type { ServiceObject } from '../../policy/kinds/service.ts';
import type { ServiceEntry } from '../../policy/kinds/service-entry.ts';
import type { PeerAuthentication } from '../../policy/peer-authentication.ts';
import type { Selections } from '../../policy/policy-object.ts';
import type { ScopeConfig } from '../../policy/scope-config.ts';
import type { Snapshot } from '../../snapshot.ts';

/** Policies here are the plain ones; those in a ScopeConfig stand in it alone. */
export interface MeshObjects {
  readonly config: MeshConfig;
  readonly peerAuthentications: readonly PeerAuthentication[];
  readonly authorizationPolicies: readonly AuthorizationPolicy[];
  readonly destinationRules: readonly DestinationRule[];
  readonly requestAuthentications: readonly RequestAuthentication[];
  readonly scopeConfigs: readonly ScopeConfig[];
  readonly serviceEntries: readonly ServiceEntry[];
  readonly pods: readonly Pod[];
  readonly services: readonly ServiceObject[];
  readonly endpointSlices: readonly EndpointSlice[];
}

/** Whoever knows the objects. Only whole, valid sets are published; a bad change leaves the last good set in place. */
export interface ObjectSource {
  readonly objects: Snapshot<MeshObjects>;
}

/** Objects, and whom their rollouts have come to: what is resolved, as one value, so that nobody sees the one without the other. */
export interface EffectiveObjects {
  readonly objects: MeshObjects;
  readonly selections: Selections;
}
