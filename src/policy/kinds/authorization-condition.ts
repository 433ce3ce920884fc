// `when` of an AuthorizationPolicy: a key, and the values it must or must not have. The keys that a TCP connection answers.

import { z } from 'zod';
import { type AuthorizationMatch, emptyMatch } from '../authorization.ts';
import * as values from './authorization-values.ts';

function condition<const K extends string, T extends z.ZodType<readonly unknown[]>>(key: K, list: T) {
  return z.strictObject({ key: z.literal(key), values: list, notValues: list });
}

const supported = {
  'source.ip': condition('source.ip', values.ipBlocks),
  'source.namespace': condition('source.namespace', values.stringMatches),
  'source.principal': condition('source.principal', values.principals),
  'source.serviceAccount': condition('source.serviceAccount', values.serviceAccounts),
  'destination.ip': condition('destination.ip', values.ipBlocks),
  'destination.port': condition('destination.port', values.ports),
} as const;

export const conditionSchema = z
  .discriminatedUnion(
    'key',
    [
      supported['source.ip'],
      supported['source.namespace'],
      supported['source.principal'],
      supported['source.serviceAccount'],
      supported['destination.ip'],
      supported['destination.port'],
    ],
    { error: ({ input }) => unsupportedKey(input) },
  )
  .superRefine((of, context) => {
    if (of.values.length + of.notValues.length === 0)
      context.addIssue({ code: 'custom', path: ['values'], message: 'give values or notValues' });
  });

type Condition = z.output<typeof conditionSchema>;

export function conditionMatch(of: Condition): AuthorizationMatch {
  switch (of.key) {
    case 'source.ip':
      return { ...emptyMatch, sourceIps: of.values, notSourceIps: of.notValues };
    case 'source.namespace':
      return { ...emptyMatch, namespaces: of.values, notNamespaces: of.notValues };
    case 'source.principal':
      return { ...emptyMatch, principals: of.values, notPrincipals: of.notValues };
    case 'source.serviceAccount':
      return { ...emptyMatch, serviceAccounts: of.values, notServiceAccounts: of.notValues };
    case 'destination.ip':
      return { ...emptyMatch, destinationIps: of.values, notDestinationIps: of.notValues };
    case 'destination.port':
      return { ...emptyMatch, destinationPorts: of.values, notDestinationPorts: of.notValues };
    default:
      return of satisfies never;
  }
}

function unsupportedKey(input: unknown): string {
  const key = typeof input === 'object' && input !== null && 'key' in input ? input.key : undefined;
  const accepted = `accepted keys: ${Object.keys(supported).join(', ')}`;
  if (typeof key !== 'string') return `key is missing; ${accepted}`;
  return `key ${JSON.stringify(key)} is not supported: ${whyNotKey(key)}; ${accepted}`;
}

function whyNotKey(key: string): string {
  if (key.startsWith('request.')) return 'it is of HTTP, and what is judged here are connections';
  if (key === 'remote.ip') return 'it comes from an HTTP header; source.ip is the address of whoever connected';
  if (key === 'source.trustDomain') return 'use source.principal with "TRUST-DOMAIN/*"';
  if (key === 'connection.sni') return 'use destination.port, or a policy of its own for the workload';
  if (key.startsWith('experimental.')) return 'it is of an Envoy filter';
  if (key === 'destination.namespace') return "the policy's own namespace says it";
  if (key.startsWith('destination.labels')) return 'use the selector';
  return 'it is unknown';
}
