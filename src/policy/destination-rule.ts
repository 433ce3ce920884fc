// DestinationRules as a client's side: of several for one host the first in order holds, and Istio's order of places is the client's namespace, the service's, the root
// (https://istio.io/latest/docs/ops/best-practices/traffic-management/#cross-namespace-configuration).

import type { ClientTlsRule, ClientTlsSettings } from './model.ts';
import type { PolicyIndex } from './policy-index.ts';
import { byAge, byScope, type PolicyObject, type Selections } from './policy-object.ts';
import type { PolicySubject } from './policy-subject.ts';

export interface DestinationRule extends PolicyObject {
  /** A whole host name, `*.suffix`, or `*`. */
  readonly host: string;
  /** Undefined: it has no trafficPolicy, and leaves the say to a later one for its host. */
  readonly settings: ClientTlsSettings | undefined;
  /** Whether clients of other namespaces follow it. */
  readonly exported: boolean;
}

const AUTO: ClientTlsSettings = Object.freeze({ tls: undefined, ports: new Map() });
const NO_RULES: readonly ClientTlsRule[] = Object.freeze([]);

/** Wrapped before plain, those with a workloadSelector before those without, then the oldest. */
export function byRulePrecedence(a: DestinationRule, b: DestinationRule): number {
  return byScope(a, b) || Number(a.selector === undefined) - Number(b.selector === undefined) || byAge(a, b);
}

/** The rules of a client's own side, and those of the root namespace for it alone; one a host. */
export function clientRulesFor(
  indexes: { own: PolicyIndex<DestinationRule>; root: PolicyIndex<DestinationRule> },
  of: { subject: PolicySubject; selections: Selections },
): { clientTls: readonly ClientTlsRule[]; rootClientTls: readonly ClientTlsRule[] } {
  return {
    clientTls: firstOfEachHost(indexes.own.holding(of.subject, of.selections)),
    rootClientTls: firstOfEachHost(rootRulesFor(indexes, of)),
  };
}

/** Which of the rules that hold decides for each host. */
export function winnersByHost(rules: readonly DestinationRule[]): Map<string, DestinationRule> {
  const winners = new Map<string, DestinationRule>();
  for (const rule of rules) {
    const first = winners.get(rule.host);
    if (first === undefined || (first.settings === undefined && rule.settings !== undefined)) winners.set(rule.host, rule);
  }
  return winners;
}

/** Wrapped rules of the root namespace are for some clients only, so they travel with these; plain ones travel with the services. */
export function rootRulesFor(
  { own, root }: { own: PolicyIndex<DestinationRule>; root: PolicyIndex<DestinationRule> },
  { subject, selections }: { subject: PolicySubject; selections: Selections },
): readonly DestinationRule[] {
  if (own === root) return [];
  return root.holding(subject, selections).filter((rule) => rule.scopeConfig !== undefined && rule.exported);
}

/** What a namespace's rules say to everybody: the plain, exported ones. */
export function exportedRules(index: PolicyIndex<DestinationRule>): readonly ClientTlsRule[] {
  return firstOfEachHost(index.all.filter((rule) => rule.exported && rule.selector === undefined && rule.scopeConfig === undefined));
}

function firstOfEachHost(rules: readonly DestinationRule[]): readonly ClientTlsRule[] {
  if (rules.length === 0) return NO_RULES;
  return [...winnersByHost(rules).values()].map(({ host, settings }) => ({ host, ...(settings ?? AUTO) }));
}
