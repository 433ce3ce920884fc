// The values of an AuthorizationPolicy, read as Istio reads them: names with a wildcard at one end, service accounts, ports, blocks of addresses.

import { z } from 'zod';
import { messageOf } from '../../errors.ts';
import type { ServiceAccountMatch, StringMatch } from '../authorization.ts';
import { parseIpBlock } from '../ip-blocks.ts';

export const MAX_VALUES = 10_000;
/** Istio's own bounds. */
const MAX_SERVICE_ACCOUNTS = 16;
const MAX_SERVICE_ACCOUNT_LENGTH = 320;

const text = z.string().min(1, 'an empty value matches nothing: remove it');

const list = <T extends z.ZodType>(value: T) => z.array(value).max(MAX_VALUES, `more than ${MAX_VALUES} values`).default([]);

/** `foo` exactly, `foo*`, `*foo`, or `*` for anybody. A wildcard elsewhere would be a letter that is in no name, and a DENY with it would deny nobody. */
export const stringMatch = text.transform((value, context): StringMatch => {
  const match = matchOf(value);
  if (!match.value.includes('*')) return match;
  context.addIssue({
    code: 'custom',
    message: `${JSON.stringify(value)} would match nobody: there is one * in a value, as the whole of it, its first or its last character`,
  });
  return z.NEVER;
});

function matchOf(value: string): StringMatch {
  if (value === '*') return { kind: 'presence', value: '' };
  if (value.startsWith('*')) return { kind: 'suffix', value: value.slice(1) };
  return value.endsWith('*') ? { kind: 'prefix', value: value.slice(0, -1) } : { kind: 'exact', value };
}

const principal = text
  .superRefine((value, context) => {
    if (!/^\*?spiffe:\/\//.test(value)) return;
    context.addIssue({
      code: 'custom',
      message: `${JSON.stringify(value)} would never match: principals are written without spiffe://, as ${JSON.stringify(value.replace('spiffe://', ''))}`,
    });
  })
  .pipe(stringMatch);

/** `name` of the policy's own namespace, or `namespace/name`. An empty namespace is filled in later. */
const serviceAccount = text
  .max(MAX_SERVICE_ACCOUNT_LENGTH)
  .refine((value) => !value.includes('*'), 'a service account has no wildcards: use principals')
  .refine((value) => /^([^/]+\/)?[^/]+$/.test(value), 'write name, or namespace/name')
  .transform((value): ServiceAccountMatch => {
    const [first = '', second] = value.split('/');
    return second === undefined ? { namespace: '', serviceAccount: first } : { namespace: first, serviceAccount: second };
  });

const ipBlock = text.transform((value, context) => {
  try {
    return parseIpBlock(value);
  } catch (error) {
    context.addIssue({ code: 'custom', message: messageOf(error) });
    return z.NEVER;
  }
});

const portText = z
  .string({ error: 'a port is written as a string, as in Istio: "8080"' })
  .refine((value) => /^[0-9]{1,5}$/.test(value) && Number(value) >= 1 && Number(value) <= 65535, 'a port from 1 to 65535')
  .transform(Number);

export const stringMatches = list(stringMatch);
export const principals = list(principal);
export const serviceAccounts = list(serviceAccount).refine(
  (all) => all.length <= MAX_SERVICE_ACCOUNTS,
  `more than ${MAX_SERVICE_ACCOUNTS} service accounts: use principals`,
);
export const ipBlocks = list(ipBlock);
export const ports = list(portText);
