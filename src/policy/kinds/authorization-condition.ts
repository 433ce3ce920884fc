// `when` of an AuthorizationPolicy: a key, and the values it must or must not have (https://istio.io/latest/docs/reference/config/security/conditions/).

import { z } from 'zod';
import { type AuthorizationMatch, emptyMatch } from '../authorization.ts';
import { emptyHttpMatch, type HttpMatch } from '../http-match.ts';
import type { StringMatch } from '../string-match.ts';
import * as values from './authorization-values.ts';

/** How a key's values are read, and what is made of them. */
interface Key {
  read(lists: Lists): z.ZodSafeParseResult<AuthorizationMatch>;
}

interface Lists {
  readonly values: readonly string[];
  readonly notValues: readonly string[];
}

function key<T>(list: z.ZodType<readonly T[]>, make: (values: readonly T[], notValues: readonly T[]) => Partial<AuthorizationMatch>): Key {
  const lists = z.object({ values: list, notValues: list }).transform((of) => ({ ...emptyMatch, ...make(of.values, of.notValues) }));
  return { read: (of) => lists.safeParse(of) };
}

function httpKey(make: (values: readonly StringMatch[], notValues: readonly StringMatch[]) => Partial<HttpMatch>): Key {
  return key(values.stringMatches, (wanted, unwanted) => ({ http: { ...emptyHttpMatch, ...make(wanted, unwanted) } }));
}

const supported: Readonly<Record<string, Key>> = {
  'source.ip': key(values.ipBlocks, (sourceIps, notSourceIps) => ({ sourceIps, notSourceIps })),
  'source.namespace': key(values.stringMatches, (namespaces, notNamespaces) => ({ namespaces, notNamespaces })),
  'source.principal': key(values.principals, (principals, notPrincipals) => ({ principals, notPrincipals })),
  'source.serviceAccount': key(values.serviceAccounts, (serviceAccounts, notServiceAccounts) => ({ serviceAccounts, notServiceAccounts })),
  'destination.ip': key(values.ipBlocks, (destinationIps, notDestinationIps) => ({ destinationIps, notDestinationIps })),
  'destination.port': key(values.ports, (destinationPorts, notDestinationPorts) => ({ destinationPorts, notDestinationPorts })),
  'request.auth.principal': httpKey((requestPrincipals, notRequestPrincipals) => ({ requestPrincipals, notRequestPrincipals })),
  'request.auth.audiences': httpKey((audiences, notAudiences) => ({ audiences, notAudiences })),
  'request.auth.presenter': httpKey((presenters, notPresenters) => ({ presenters, notPresenters })),
};

/** A field name, as HTTP has them. */
const HEADER = /^request\.headers\[([!#$%&'*+.^_`|~0-9A-Za-z-]+)\]$/;
/** Claims within claims, each in brackets. */
const CLAIM = /^request\.auth\.claims((?:\[[^[\]]+\])+)$/;

function keyOf(name: string): Key | undefined {
  if (Object.hasOwn(supported, name)) return supported[name];
  const header = HEADER.exec(name)?.[1]?.toLowerCase();
  if (header !== undefined && header.replaceAll('_', '-') === 'x-forwarded-client-cert') return undefined;
  if (header !== undefined) return httpKey((wanted, notValues) => ({ headers: [{ name: header, values: wanted, notValues }] }));
  const claim = CLAIM.exec(name)?.[1]?.slice(1, -1).split('][');
  return claim === undefined ? undefined : httpKey((wanted, notValues) => ({ claims: [{ path: claim, values: wanted, notValues }] }));
}

const texts = z.array(z.string()).max(values.MAX_VALUES, `more than ${values.MAX_VALUES} values`).default([]);

/** Read as the match that it is. */
export const conditionSchema = z
  .strictObject({ key: z.string().optional(), values: texts, notValues: texts })
  .transform((of, context): AuthorizationMatch => {
    const known = of.key === undefined ? undefined : keyOf(of.key);
    if (known === undefined) {
      context.addIssue({ code: 'custom', path: ['key'], message: unsupportedKey(of.key) });
      return z.NEVER;
    }
    if (of.values.length + of.notValues.length === 0)
      context.addIssue({ code: 'custom', path: ['values'], message: 'give values or notValues' });
    const read = known.read(of);
    if (read.success) return read.data;
    for (const { path, message } of read.error.issues) context.addIssue({ code: 'custom', path: [...path], message });
    return z.NEVER;
  });

function unsupportedKey(name: string | undefined): string {
  const accepted = `accepted keys: ${[...Object.keys(supported), 'request.headers[NAME]', 'request.auth.claims[NAME]'].join(', ')}`;
  if (name === undefined) return `key is missing; ${accepted}`;
  return `key ${JSON.stringify(name)} is not supported: ${whyNotKey(name)}; ${accepted}`;
}

function whyNotKey(name: string): string {
  if (HEADER.test(name)) return 'the sidecar writes it; source.principal is who called';
  if (name === 'remote.ip') return 'it comes from an HTTP header; source.ip is the address of whoever connected';
  if (name === 'source.trustDomain') return 'use source.principal with "TRUST-DOMAIN/*"';
  if (name === 'connection.sni') return 'use destination.port, or a policy of its own for the workload';
  if (name.startsWith('experimental.')) return 'it is of an Envoy filter';
  if (name === 'destination.namespace') return "the policy's own namespace says it";
  if (name.startsWith('destination.labels')) return 'use the selector';
  return 'it is unknown';
}
