// Why a policy does not hold for a pod, in words.

import type { NotHeld, PolicyObject } from '../../policy/policy-object.ts';

export const WON = 'won';

export function describeNotHeld(why: NotHeld, { selector, scopeConfig }: PolicyObject): string {
  switch (why) {
    case 'SELECTOR':
      return `selector ${[...(selector ?? [])].map(([key, value]) => `${key}=${value}`).join(', ')} does not match`;
    case 'SCOPE_CONFIG':
      return `ScopeConfig ${scopeConfig?.key} selects other pods`;
    case 'ROLLOUT':
      return `not in the rollout of ScopeConfig ${scopeConfig?.key} yet`;
    case 'NOT_A_POD':
      return 'a ScopeConfig selects pods only';
    default:
      return why satisfies never;
  }
}
