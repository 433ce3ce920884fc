// security.istio.io AuthorizationPolicy, as Istio validates it (https://istio.io/latest/docs/reference/config/security/authorization-policy/).

import { z } from 'zod';
import {
  type AuthorizationMatch,
  type AuthorizationRule,
  authorizationActions,
  emptyMatch,
  type ServiceAccountMatch,
} from '../authorization.ts';
import type { AuthorizationPolicy } from '../authorization-policy.ts';
import { emptyHttpMatch, httpValuesIn, withHttp } from '../http-match.ts';
import type { PolicyMeta } from '../policy-object.ts';
import { conditionSchema } from './authorization-condition.ts';
import * as values from './authorization-values.ts';
import { dryRunnableMeta, matchLabelsSelector, policyMetaOf, selectorOf, wrappedDryRunnableMeta } from './policy-meta.ts';
import { allUnsupported, unsupported } from './unsupported.ts';

const MAX_RULES = 1000;

const source = z
  .strictObject({
    principals: values.principals,
    notPrincipals: values.principals,
    namespaces: values.stringMatches,
    notNamespaces: values.stringMatches,
    serviceAccounts: values.serviceAccounts,
    notServiceAccounts: values.serviceAccounts,
    ipBlocks: values.ipBlocks,
    notIpBlocks: values.ipBlocks,
    requestPrincipals: values.stringMatches,
    notRequestPrincipals: values.stringMatches,
    ...allUnsupported(
      ['remoteIpBlocks', 'notRemoteIpBlocks'],
      'it comes from an HTTP header; ipBlocks are the addresses of whoever connected',
    ),
    ...allUnsupported(['trustDomains', 'notTrustDomains'], 'use principals with "TRUST-DOMAIN/*"'),
  })
  .superRefine((of, context) => {
    const refuse = (message: string) => context.addIssue({ code: 'custom', message });
    if (countOf(of) === 0) refuse('is empty: it would match nobody; to match everybody leave `from` out');
    const accounts = of.serviceAccounts.length + of.notServiceAccounts.length;
    const others = of.principals.length + of.notPrincipals.length + of.namespaces.length + of.notNamespaces.length;
    if (accounts > 0 && others > 0) refuse('serviceAccounts may not stand beside principals or namespaces: use one of them');
  });

const operation = z
  .strictObject({
    ports: values.ports,
    notPorts: values.ports,
    hosts: values.hosts,
    notHosts: values.hosts,
    methods: values.methods,
    notMethods: values.methods,
    paths: values.paths,
    notPaths: values.paths,
  })
  .superRefine((of, context) => {
    if (countOf(of) === 0)
      context.addIssue({ code: 'custom', message: 'is empty: it would match nothing; to match every port leave `to` out' });
  });

const some = <T extends z.ZodType>(element: T, name: string) =>
  z.array(element).min(1, `is empty: leave \`${name}\` out to match all`).max(values.MAX_VALUES).optional();

const rule = z.strictObject({
  from: some(z.strictObject({ source }), 'from'),
  to: some(z.strictObject({ operation }), 'to'),
  when: z.array(conditionSchema).max(values.MAX_VALUES).default([]),
});

const spec = z
  .strictObject({
    selector: matchLabelsSelector.optional(),
    action: z.enum(authorizationActions).default('ALLOW'),
    rules: z.array(rule).max(MAX_RULES, `more than ${MAX_RULES} rules: split the policy`).default([]),
    ...allUnsupported(['targetRef', 'targetRefs'], 'there are no gateways or waypoints here; use selector'),
    provider: unsupported('CUSTOM authorization asks a server about each request; ALLOW and DENY are judged here'),
  })
  .superRefine(({ action, rules }, context) => {
    if (action === 'DENY' && rules.length === 0)
      context.addIssue({ code: 'custom', path: ['rules'], message: 'DENY without rules denies nothing; `rules: [{}]` denies everything' });
    const count = rules.reduce(
      (sum, of) =>
        sum +
        clausesOf(of, '')
          .flat()
          .reduce((inner, { http, ...match }) => inner + countOf(match) + httpValuesIn(http), 0),
      0,
    );
    if (count > values.MAX_VALUES)
      context.addIssue({
        code: 'custom',
        path: ['rules'],
        message: `${count} values: at most ${values.MAX_VALUES} in one policy; split it`,
      });
  });

const head = {
  apiVersion: z.enum(['security.istio.io/v1', 'security.istio.io/v1beta1']),
  kind: z.literal('AuthorizationPolicy'),
};
const body = {
  // `spec: {}` allows nothing; without any spec, a file may have been cut short.
  spec,
  status: z.unknown().optional(),
};

export const authorizationPolicySchema = z.strictObject({ ...head, metadata: dryRunnableMeta, ...body });
export const wrappedAuthorizationPolicySchema = z.strictObject({ ...head, metadata: wrappedDryRunnableMeta, ...body });

export function authorizationPolicyOf({ metadata, spec }: z.output<typeof authorizationPolicySchema>): AuthorizationPolicy {
  return authorizationPolicyWith(policyMetaOf(metadata), spec);
}

export function authorizationPolicyWith(meta: PolicyMeta, of: z.output<typeof spec>): AuthorizationPolicy {
  return {
    ...meta,
    selector: selectorOf(of.selector),
    action: of.action,
    rules: of.rules.map((one) => clausesOf(one, meta.namespace)),
  };
}

function clausesOf({ from, to, when }: z.output<typeof rule>, namespace: string): AuthorizationRule {
  return [
    ...(from === undefined ? [] : [from.map((each) => sourceMatch(each.source, namespace))]),
    ...(to === undefined ? [] : [to.map((each) => operationMatch(each.operation))]),
    ...when.map((condition) => [withNamespace(condition, namespace)]),
  ];
}

function sourceMatch(of: z.output<typeof source>, namespace: string): AuthorizationMatch {
  const match = {
    ...emptyMatch,
    principals: of.principals,
    notPrincipals: of.notPrincipals,
    namespaces: of.namespaces,
    notNamespaces: of.notNamespaces,
    serviceAccounts: of.serviceAccounts,
    notServiceAccounts: of.notServiceAccounts,
    sourceIps: of.ipBlocks,
    notSourceIps: of.notIpBlocks,
  };
  const { requestPrincipals, notRequestPrincipals } = of;
  return withNamespace(withHttp(match, { ...emptyHttpMatch, requestPrincipals, notRequestPrincipals }), namespace);
}

function operationMatch(of: z.output<typeof operation>): AuthorizationMatch {
  const { ports, notPorts, ...http } = of;
  return withHttp({ ...emptyMatch, destinationPorts: ports, notDestinationPorts: notPorts }, { ...emptyHttpMatch, ...http });
}

/** A service account that was written without a namespace is of the policy's own. */
function withNamespace(match: AuthorizationMatch, namespace: string): AuthorizationMatch {
  const complete = (account: ServiceAccountMatch) => (account.namespace === '' ? { ...account, namespace } : account);
  return {
    ...match,
    serviceAccounts: match.serviceAccounts.map(complete),
    notServiceAccounts: match.notServiceAccounts.map(complete),
  };
}

function countOf(lists: Readonly<Record<string, readonly unknown[] | undefined>>): number {
  return Object.values(lists).reduce((sum: number, values: readonly unknown[] | undefined) => sum + (values?.length ?? 0), 0);
}
