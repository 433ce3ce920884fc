// Whose tokens count in requests to a pod: every RequestAuthentication in its reach, and why it holds or not.

import { type PoliciesInReach, requestAuthenticationPlaces } from '../../policy/namespace-policies.ts';
import { type Selections, sourceOf, whyNot } from '../../policy/policy-object.ts';
import type { PolicySubject } from '../../policy/policy-subject.ts';
import { describeNotHeld } from './explain-words.ts';

export interface TokenExplanation {
  readonly source: string;
  readonly issuers: readonly string[];
  readonly holds: boolean;
  /** `holds`, or why not. */
  readonly outcome: string;
}

export function explainTokens(within: PoliciesInReach, of: { subject: PolicySubject; selections: Selections }): TokenExplanation[] {
  return requestAuthenticationPlaces(within).flatMap(({ all }) =>
    all.map((policy): TokenExplanation => {
      const refused = whyNot(policy, of.subject, of.selections);
      return {
        source: sourceOf('RequestAuthentication', policy),
        issuers: policy.rules.map(({ issuer }) => issuer),
        holds: refused === undefined,
        outcome: refused === undefined ? 'holds' : describeNotHeld(refused, policy),
      };
    }),
  );
}
