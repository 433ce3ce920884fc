// A ScopeConfig: a policy that holds for some pods only, at once or little by little.

import type { AuthorizationPolicy } from './authorization-policy.ts';
import type { DestinationRule } from './destination-rule.ts';
import type { PeerAuthentication } from './peer-authentication.ts';
import type { PolicyScope } from './policy-object.ts';

export type WrappedPolicy =
  | { readonly kind: 'PeerAuthentication'; readonly policy: PeerAuthentication }
  | { readonly kind: 'AuthorizationPolicy'; readonly policy: AuthorizationPolicy }
  | { readonly kind: 'DestinationRule'; readonly policy: DestinationRule };

/** In the root namespace it selects pods everywhere, else of its own namespace. The policy carries the scope itself, too. */
export interface ScopeConfig {
  readonly name: string;
  readonly namespace: string;
  readonly scope: PolicyScope;
  readonly wrapped: WrappedPolicy;
  /** The object as JSON, to be read again when it is not in force any more but what replaces it is not everywhere yet. */
  readonly document: string;
}
