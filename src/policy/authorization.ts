// May this peer, from this address, reach this port, and ask for this there? Istio's AuthorizationPolicy: a DENY that matches refuses; where there is an ALLOW, one of them must match
// (https://istio.io/latest/docs/concepts/security/#implicit-enablement).

import { type SpiffeId, workloadOf } from '../spiffe/spiffe-id.ts';
import { type HttpMatch, hostReadings, httpValuesIn, matchesRequest, type ReadRequest } from './http-match.ts';
import type { HttpRequestFacts } from './http-request.ts';
import { type IpBits, type IpBlock, ipBitsOf, ipBlockSetOf } from './ip-blocks.ts';
import type { Endpoint } from './model.ts';
import { matchesText, type StringMatch } from './string-match.ts';
import { ALLOWED, type Verdict } from './verdict.ts';

export interface ServiceAccountMatch {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** All the fields that are not empty must match, each by one of its values; and none of a `not` field's. One that is empty altogether matches nothing. */
export interface AuthorizationMatch {
  readonly namespaces: readonly StringMatch[];
  readonly notNamespaces: readonly StringMatch[];
  readonly serviceAccounts: readonly ServiceAccountMatch[];
  readonly notServiceAccounts: readonly ServiceAccountMatch[];
  /** Without `spiffe://`. */
  readonly principals: readonly StringMatch[];
  readonly notPrincipals: readonly StringMatch[];
  readonly sourceIps: readonly IpBlock[];
  readonly notSourceIps: readonly IpBlock[];
  readonly destinationIps: readonly IpBlock[];
  readonly notDestinationIps: readonly IpBlock[];
  readonly destinationPorts: readonly number[];
  readonly notDestinationPorts: readonly number[];
  /** What is of HTTP; undefined where nothing is. */
  readonly http?: HttpMatch;
}

/** To begin a match with. */
export const emptyMatch: AuthorizationMatch = Object.freeze({
  namespaces: [],
  notNamespaces: [],
  serviceAccounts: [],
  notServiceAccounts: [],
  principals: [],
  notPrincipals: [],
  sourceIps: [],
  notSourceIps: [],
  destinationIps: [],
  notDestinationIps: [],
  destinationPorts: [],
  notDestinationPorts: [],
});

/** One of its matches; without any, always. */
export type AuthorizationClause = readonly AuthorizationMatch[];
/** All of its clauses; without any, always. */
export type AuthorizationRule = readonly AuthorizationClause[];

export const authorizationActions = ['ALLOW', 'DENY'] as const;
export const authorizationScopes = ['GLOBAL', 'NAMESPACE', 'WORKLOAD_SELECTOR'] as const;

/** As it travels (istio.security.Authorization). It matches when one of its rules does; without rules, never. */
export interface Authorization {
  readonly name: string;
  readonly namespace: string;
  /** WORKLOAD_SELECTOR: of the workloads that name it. */
  readonly scope: (typeof authorizationScopes)[number];
  readonly action: (typeof authorizationActions)[number];
  readonly rules: readonly AuthorizationRule[];
  /** Judged and reported, not enforced. */
  readonly dryRun: boolean;
}

/** What holds for one workload. `missing`: names it is bound to and that nobody has sent. */
export interface AuthorizationSet {
  readonly policies: readonly Authorization[];
  readonly missing: readonly string[];
}

/** What is known of a connection to a workload. `peer` is proven, or nobody. */
export interface AuthorizationSubject {
  readonly peer: SpiffeId | undefined;
  /** Canonical text. */
  readonly sourceIp: string;
  readonly destination: Endpoint;
  /** Undefined where what is judged is a connection, of which no more is known. */
  readonly request?: HttpRequestFacts;
}

export const noAuthorizations: AuthorizationSet = Object.freeze({ policies: [], missing: [] });

export function authorizationKey({ namespace, name }: { namespace: string; name: string }): string {
  return `${namespace}/${name}`;
}

/** `dryRun`: as if what is in dry-run were in force. */
export function decideAuthorization(set: AuthorizationSet, subject: AuthorizationSubject, { dryRun = false } = {}): Verdict {
  if (set.missing.length > 0) return denied(`AuthorizationPolicy ${set.missing.join(', ')} is bound to this workload and has not arrived`);
  if (set.policies.length === 0 && subject.request === undefined) return ALLOWED;
  const inForce = dryRun ? asIfInForce(set.policies) : set.policies.filter((policy) => !policy.dryRun);
  const facts = factsOf(subject);
  const { request } = subject;
  if (request === undefined) return decideBy(inForce, subject, facts);
  // Whichever way the application reads path and host, it must be allowed that way.
  for (const host of hostReadings(request.host))
    for (const path of request.paths) {
      const verdict = decideBy(inForce, subject, { ...facts, request: { ...request, host, path } });
      if (!verdict.allowed) return verdict;
    }
  return request.paths.length === 0 ? denied(`${who(subject)}: a request without a path`) : ALLOWED;
}

function decideBy(inForce: readonly Authorization[], subject: AuthorizationSubject, facts: Facts): Verdict {
  const denying = inForce.find((policy) => policy.action === 'DENY' && matches(policy, facts));
  if (denying !== undefined) return denied(`${who(subject)} is denied by ${describe(denying)}`);
  const allowing = inForce.filter((policy) => policy.action === 'ALLOW');
  if (allowing.length === 0 || allowing.some((policy) => matches(policy, facts))) return ALLOWED;
  return denied(`${who(subject)} is allowed by none of ${allowing.slice(0, MAX_NAMED).map(describe).join(', ')}`);
}

/** Of a connection whose requests will be judged one by one: what holds for all of them. Undefined where it depends on what is asked. */
export function decideForAllRequests(set: AuthorizationSet, subject: AuthorizationSubject): Verdict | undefined {
  const strict = decideAuthorization(set, subject);
  if (strict.allowed || set.missing.length > 0) return strict;
  const lenient = { ...set, policies: set.policies.flatMap(leniently) };
  return decideAuthorization(lenient, subject).allowed ? undefined : strict;
}

/** As if every request had what an ALLOW asks for, and none what a DENY does. */
function leniently(policy: Authorization): Authorization[] {
  const asksHttp = (rule: AuthorizationRule) => rule.some((clause) => clause.some(({ http }) => http !== undefined));
  if (!policy.rules.some(asksHttp)) return [policy];
  const rules =
    policy.action === 'DENY'
      ? policy.rules.filter((rule) => !asksHttp(rule))
      : policy.rules.map((rule) => rule.map((clause) => withoutHttp(clause)));
  return [{ ...policy, rules }];
}

/** What would be empty then holds for everybody: the clause says nothing any more. */
function withoutHttp(clause: AuthorizationClause): AuthorizationClause {
  const left = clause.map(({ http: _, ...match }) => match);
  return clause.some(({ http }, index) => http !== undefined && isEmpty(left[index] ?? emptyMatch)) ? [] : left;
}

/** A policy of a ScopeConfig is named after it and after the plain policy that it would stand in for: `canary~allow` for `allow`. */
export const SCOPED_NAME = '~';

/** What is in dry-run beside the others, and instead of those that it would stand in for. */
function asIfInForce(policies: readonly Authorization[]): readonly Authorization[] {
  const replaced = new Set(
    policies.flatMap(({ dryRun, namespace, name }) =>
      dryRun && name.includes(SCOPED_NAME) ? [`${namespace}/${name.slice(name.indexOf(SCOPED_NAME) + 1)}`] : [],
    ),
  );
  return replaced.size === 0 ? policies : policies.filter((policy) => policy.dryRun || !replaced.has(authorizationKey(policy)));
}

const MAX_NAMED = 5;

interface Facts {
  /** `cluster.local/ns/foo/sa/bar`, or empty. */
  readonly principal: string;
  readonly namespace: string;
  readonly serviceAccount: string;
  readonly port: number;
  /** Only made where a rule asks, and once. */
  readonly source: () => IpBits;
  readonly destination: () => IpBits;
  readonly request?: ReadRequest;
}

function factsOf({ peer, sourceIp, destination }: AuthorizationSubject): Facts {
  const workload = peer === undefined ? undefined : workloadOf(peer);
  return {
    principal: peer?.uri.slice('spiffe://'.length) ?? '',
    namespace: workload?.namespace ?? '',
    serviceAccount: workload?.serviceAccount ?? '',
    port: destination.port,
    source: once(() => ipBitsOf(sourceIp)),
    destination: once(() => ipBitsOf(destination.address)),
  };
}

function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

function matches(policy: Authorization, facts: Facts): boolean {
  const { ofRequests, ofConnections } = effectiveRules(policy);
  const rules = facts.request === undefined ? ofConnections : ofRequests;
  return rules.some((rule) => rule.every((clause) => clause.some((match) => matchesAll(match, facts, policy.action))));
}

interface EffectiveRules {
  readonly ofRequests: readonly AuthorizationRule[];
  readonly ofConnections: readonly AuthorizationRule[];
}

const effective = new WeakMap<Authorization, EffectiveRules>();

/** The rules without what says nothing: clauses without matches, which always hold, and matches without a field, which never do. Found out once for each policy. */
function effectiveRules(policy: Authorization): EffectiveRules {
  let rules = effective.get(policy);
  if (rules === undefined) {
    const ofRequests = policy.rules
      .map((rule) => rule.filter((clause) => clause.length > 0).map((clause) => clause.filter((match) => !isEmpty(match))))
      .filter((rule) => rule.every((clause) => clause.length > 0));
    rules = { ofRequests, ofConnections: ofRequests.flatMap((rule) => forConnections(rule, policy.action)) };
    effective.set(policy, rules);
  }
  return rules;
}

/**
 * Where requests are not read a rule that asks for something of HTTP allows nothing; and it denies whatever it would by its other fields, as in Istio: what cannot be seen could be it
 * (https://istio.io/latest/docs/tasks/security/authorization/authz-tcp/).
 */
function forConnections(rule: AuthorizationRule, action: Authorization['action']): AuthorizationRule[] {
  if (!rule.some((clause) => clause.some(({ http }) => http !== undefined))) return [rule];
  if (action === 'ALLOW') return [];
  const left = rule.map((clause) => clause.map(({ http: _, ...match }) => match));
  return [left.filter((clause) => !clause.some(isEmpty))];
}

function matchesAll(match: AuthorizationMatch, facts: Facts, action: Authorization['action']): boolean {
  const { principal, namespace, serviceAccount, port, source, destination, request } = facts;
  const isAccount = (wanted: ServiceAccountMatch) => wanted.namespace === namespace && wanted.serviceAccount === serviceAccount;
  return (
    holds(match.destinationPorts, match.notDestinationPorts, (wanted) => wanted === port) &&
    holds(match.principals, match.notPrincipals, (wanted) => matchesText(wanted, principal)) &&
    holds(match.namespaces, match.notNamespaces, (wanted) => matchesText(wanted, namespace)) &&
    holds(match.serviceAccounts, match.notServiceAccounts, isAccount) &&
    (match.sourceIps.length === 0 || ipBlockSetOf(match.sourceIps).has(source())) &&
    (match.notSourceIps.length === 0 || !ipBlockSetOf(match.notSourceIps).has(source())) &&
    (match.destinationIps.length === 0 || ipBlockSetOf(match.destinationIps).has(destination())) &&
    (match.notDestinationIps.length === 0 || !ipBlockSetOf(match.notDestinationIps).has(destination())) &&
    (match.http === undefined || (request !== undefined && matchesRequest(match.http, request, action)))
  );
}

function holds<T>(wanted: readonly T[], unwanted: readonly T[], is: (value: T) => boolean): boolean {
  return (wanted.length === 0 || wanted.some(is)) && !unwanted.some(is);
}

function isEmpty({ http, ...lists }: AuthorizationMatch): boolean {
  return httpValuesIn(http) === 0 && Object.values(lists).every((values: readonly unknown[]) => values.length === 0);
}

function denied(reason: string): Verdict {
  return { allowed: false, code: 'AUTHORIZATION_DENIED', reason };
}

function who({ peer, sourceIp, destination, request }: AuthorizationSubject): string {
  const asks = request === undefined ? '' : `, ${request.method} ${request.paths[0]?.slice(0, 200)}`;
  return `${peer?.uri ?? `nobody proven, from ${sourceIp},`} to port ${destination.port}${asks}`;
}

function describe(policy: Authorization): string {
  return `AuthorizationPolicy ${authorizationKey(policy)}${policy.dryRun ? ' (dry-run)' : ''}`;
}
