// The two kinds of the secret channel, read from plain data. What is wrong is said by field and rule, never with what was found there: it may be the secret.

import type { z } from 'zod';
import { secretPolicyOf, secretPolicySchema } from '../../policy/kinds/secret-policy.ts';
import { workloadSecretOf, workloadSecretSchema } from '../../policy/kinds/workload-secret.ts';
import type { SecretPolicy } from '../../policy/secret-policy.ts';
import type { WorkloadSecret } from '../../policy/workload-secret.ts';

export type SecretEntry =
  | { readonly kind: 'WorkloadSecret'; readonly object: WorkloadSecret }
  | { readonly kind: 'SecretPolicy'; readonly object: SecretPolicy };

export const secretKinds = ['WorkloadSecret', 'SecretPolicy'] as const;
export type SecretKind = (typeof secretKinds)[number];

export const secretSchemas = { WorkloadSecret: workloadSecretSchema, SecretPolicy: secretPolicySchema } as const;

export function isSecretKind(kind: unknown): kind is SecretKind {
  return secretKinds.some((known) => known === kind);
}

export function readSecretEntry(
  kind: SecretKind,
  value: unknown,
  trustDomain: string,
): { readonly entry: SecretEntry } | { readonly problems: readonly string[] } {
  if (kind === 'WorkloadSecret') {
    const read = workloadSecretSchema.safeParse(value);
    return read.success ? { entry: { kind, object: workloadSecretOf(read.data) } } : { problems: problemsOf(read.error) };
  }
  const read = secretPolicySchema.safeParse(value);
  if (!read.success) return { problems: problemsOf(read.error) };
  const foreign = read.data.spec.recipients.principals.find((principal) => !principal.startsWith(`${trustDomain}/`));
  if (foreign === undefined) return { entry: { kind, object: secretPolicyOf(read.data, trustDomain) } };
  return { problems: [`spec.recipients.principals: ${foreign} is not of ${trustDomain}, and nobody else is given secrets here`] };
}

/** Such as `WorkloadSecret foo/db`. */
export function secretEntryName({ kind, object }: SecretEntry): string {
  return `${kind} ${'key' in object ? object.key : `${object.namespace}/${object.name}`}`;
}

function problemsOf({ issues }: z.ZodError): string[] {
  return issues.map((issue) => `${whereOf(issue.path)}: ${ruleOf(issue)}`);
}

/** Names of fields, and numbers: of whatever else people have written as a key nothing is said. */
const FIELDS = new Set(
  'apiVersion kind metadata name namespace labels annotations spec versions version current data stringData secrets recipients serviceAccounts principals'.split(
    ' ',
  ),
);

function whereOf(path: readonly PropertyKey[]): string {
  const parts = path.map((part) => (typeof part === 'number' || FIELDS.has(String(part)) ? String(part) : '…'));
  return parts.join('.') || 'the object';
}

/** Our own words: a message of zod's may quote what it found. */
function ruleOf(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'unrecognized_keys':
      return 'there is a field here that is not known';
    case 'invalid_type':
      return `is missing, or is no ${issue.expected}`;
    case 'invalid_value':
      return `accepted: ${issue.values.map(String).join(', ')}`;
    case 'invalid_key':
      return 'a value has a name that none can have';
    case 'custom':
    case 'invalid_format':
    case 'too_big':
    case 'too_small':
      return issue.message;
    default:
      return 'is not accepted';
  }
}
