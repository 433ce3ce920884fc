// Whose tokens count in requests to a pod: every RequestAuthentication in its reach, and why it holds or not.

import type { PoliciesInReach } from '../../policy/namespace-policies.ts';
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

export function explainTokens({ own, root }: PoliciesInReach, of: { subject: PolicySubject; selections: Selections }): TokenExplanation[] {
  const places = own === root ? [own] : [root, own];
  return places.flatMap(({ requestAuthentications }) =>
    requestAuthentications.all.map((policy): TokenExplanation => {
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
