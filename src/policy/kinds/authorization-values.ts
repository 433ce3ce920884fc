// The values of an AuthorizationPolicy, read as Istio reads them: names with a wildcard at one end, service accounts, ports, blocks of addresses.

import { z } from 'zod';
import { messageOf } from '../../errors.ts';
import type { ServiceAccountMatch } from '../authorization.ts';
import type { PathMatch } from '../http-match.ts';
import { parseIpBlock } from '../ip-blocks.ts';
import { isPathTemplate, pathTemplateProblem } from '../path-template.ts';
import { readPath } from '../request-path.ts';
import type { StringMatch } from '../string-match.ts';

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

/** Names of hosts are the same in both cases. */
const host = text.transform((value) => value.toLowerCase()).pipe(stringMatch);

/** HTTP's methods are not: `get` is none. */
const method = text
  .refine((value) => /^\*?[A-Z-]*\*?$/.test(value), {
    error: ({ input }) => `${JSON.stringify(input)} would match nothing: methods are in upper case`,
  })
  .pipe(stringMatch);

const path = text.transform((value, context): PathMatch => {
  const refuse = (message: string) => {
    context.addIssue({ code: 'custom', message: `${JSON.stringify(value)} would match nothing: ${message}` });
    return z.NEVER;
  };
  if (isPathTemplate(value)) {
    const problem = pathTemplateProblem(value);
    return problem === undefined ? { kind: 'template', value } : refuse(problem);
  }
  const match = matchOf(value);
  if (match.value.includes('*'))
    return refuse('there is one * in a path, as the whole of it, its first or its last character; {*} stands for a segment');
  if (/[?#]/.test(value)) return refuse('a path ends before its query');
  // Requests are held against it in their normal form.
  const read = match.kind === 'exact' || match.kind === 'prefix' ? readPath(match.value, { method: 'OPTIONS' }) : undefined;
  if (read !== undefined && 'refusal' in read) return refuse(read.refusal);
  if (read !== undefined && read.forward !== match.value) return refuse(`in normal form it is ${JSON.stringify(read.forward)}`);
  return match;
});

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
export const hosts = list(host);
export const methods = list(method);
export const paths = list(path);
export const principals = list(principal);
export const serviceAccounts = list(serviceAccount).refine(
  (all) => all.length <= MAX_SERVICE_ACCOUNTS,
  `more than ${MAX_SERVICE_ACCOUNTS} service accounts: use principals`,
);
export const ipBlocks = list(ipBlock);
export const ports = list(portText);
