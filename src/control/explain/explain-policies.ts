// Which AuthorizationPolicies hold for a pod, and how it speaks to others as a client, each with why or why not.

import { authorizationScopeOf, whyNotAuthorization } from '../../policy/authorization-policy.ts';
import { type DestinationRule, rootRulesFor, winnersByHost } from '../../policy/destination-rule.ts';
import type { ClientTlsSettings, Service } from '../../policy/model.ts';
import { authorizationPlaces, type PoliciesInReach } from '../../policy/namespace-policies.ts';
import { type Selections, sourceOf, whyNot } from '../../policy/policy-object.ts';
import type { PolicySubject } from '../../policy/policy-subject.ts';
import { describeNotHeld, WON } from './explain-words.ts';

export interface AuthorizationExplanation {
  readonly source: string;
  readonly action: string;
  readonly scope: string;
  readonly dryRun: boolean;
  readonly holds: boolean;
  /** `holds`, `dry-run`, or why not. */
  readonly outcome: string;
}

export interface ClientRuleExplanation {
  readonly host: string;
  readonly source: string;
  readonly tls: string;
  readonly ports: Readonly<Record<string, string>>;
  /** `won` (for its host), or why not. */
  readonly outcome: string;
}

/** A service with a setting of its own; the pod's rules come before it. */
export interface ServiceTlsExplanation {
  readonly service: string;
  readonly tls: string;
  readonly source: string;
}

interface Of {
  readonly subject: PolicySubject;
  readonly selections: Selections;
}

/** Those that hold come first. */
export function explainAuthorizations(within: PoliciesInReach, rootNamespace: string, of: Of): AuthorizationExplanation[] {
  const all = authorizationPlaces(within).flatMap((index) =>
    index.policies.all.map((policy): AuthorizationExplanation => {
      const why = whyNotAuthorization(policy, index, of);
      const outcome =
        why === undefined
          ? policy.dryRun
            ? 'dry-run'
            : 'holds'
          : typeof why === 'object'
            ? `replaced by ${sourceOf('AuthorizationPolicy', why.replacedBy)}`
            : describeNotHeld(why, policy);
      return {
        source: sourceOf('AuthorizationPolicy', policy),
        action: policy.action,
        scope: authorizationScopeOf(policy, { rootNamespace, index }),
        dryRun: policy.dryRun,
        holds: why === undefined && !policy.dryRun,
        outcome,
      };
    }),
  );
  return [...all.filter(({ holds }) => holds), ...all.filter(({ holds }) => !holds)];
}

/** The rules of the pod's own side, in order of precedence. */
export function explainClientRules(within: PoliciesInReach, of: Of): ClientRuleExplanation[] {
  const indexes = { own: within.own.destinationRules, root: within.root.destinationRules };
  const winners = { own: winnersByHost(indexes.own.holding(of.subject, of.selections)), root: winnersByHost(rootRulesFor(indexes, of)) };
  const fromRoot =
    indexes.own === indexes.root ? [] : indexes.root.all.filter(({ scopeConfig, exported }) => scopeConfig !== undefined && exported);
  const explain = (place: keyof typeof winners) => (rule: DestinationRule) => {
    const refused = whyNot(rule, of.subject, of.selections);
    const winner = winners[place].get(rule.host);
    const outcome =
      refused !== undefined
        ? describeNotHeld(refused, rule)
        : winner === rule || winner === undefined
          ? place === 'own'
            ? WON
            : `${WON}, where neither the pod's nor the service's namespace has a rule`
          : `${sourceOf('DestinationRule', winner)} wins for ${rule.host}`;
    return { host: rule.host, source: sourceOf('DestinationRule', rule), ...describeSettings(rule.settings), outcome };
  };
  return [...indexes.own.all.map(explain('own')), ...fromRoot.map(explain('root'))];
}

export function explainServices(services: Iterable<Service>): ServiceTlsExplanation[] {
  return [...services].flatMap(({ key, clientTls }) =>
    clientTls === undefined ? [] : [{ service: key, tls: describeSettings(clientTls).tls, source: sourceOfSettings(clientTls) }],
  );
}

function describeSettings(settings: ClientTlsSettings | undefined): { tls: string; ports: Record<string, string> } {
  const ports = [...(settings?.ports ?? [])].map(([port, tls]) => [String(port), tls?.mode ?? 'auto'] as const);
  return { tls: settings?.tls?.mode ?? 'auto', ports: Object.fromEntries(ports) };
}

function sourceOfSettings({ tls, ports }: ClientTlsSettings): string {
  const [first] = [tls, ...ports.values()].filter((one) => one !== undefined);
  return first?.source ?? 'auto-mTLS was asked for';
}
