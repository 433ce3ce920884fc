// handfast.io SecretPolicy: which secrets of its namespace may be received by whom. A kind of its own, so that whoever writes secrets need not be whoever grants them.

import { z } from 'zod';
import { workloadSpiffeId } from '../../spiffe/spiffe-id.ts';
import type { SecretPolicy } from '../secret-policy.ts';
import { objectMeta } from './object-meta.ts';

const MAX_SECRETS = 256;
const MAX_RECIPIENTS = 1_000;

const NAMESPACE = '[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?';
const ACCOUNT = '[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?';
/** An asterisk stands at the end alone, and behind the whole namespace: `ns/foo*` would be `ns/foo-of-somebody-else`, too. */
const principal = z
  .string()
  .max(600)
  .regex(
    new RegExp(`^[a-z0-9._-]{1,255}/ns/${NAMESPACE}/sa/(${ACCOUNT}|([a-z0-9][-.a-z0-9]{0,251})?\\*)$`),
    'TRUST-DOMAIN/ns/NAMESPACE/sa/NAME; an asterisk may end NAME, or be all of it',
  );
const serviceAccount = z.string().regex(new RegExp(`^${NAMESPACE}/${ACCOUNT}$`), 'NAMESPACE/NAME of a service account');

export const secretPolicySchema = z
  .strictObject({
    apiVersion: z.enum(['handfast.io/v1alpha1']),
    kind: z.literal('SecretPolicy'),
    metadata: objectMeta,
    spec: z.strictObject({
      secrets: z.array(objectMeta.shape.name).min(1, 'name at least one secret').max(MAX_SECRETS, `more than ${MAX_SECRETS} secrets`),
      recipients: z.strictObject({
        serviceAccounts: z.array(serviceAccount).max(MAX_RECIPIENTS, `more than ${MAX_RECIPIENTS} service accounts`).default([]),
        principals: z.array(principal).max(MAX_RECIPIENTS, `more than ${MAX_RECIPIENTS} principals`).default([]),
      }),
    }),
    status: z.unknown().optional(),
  })
  .superRefine(({ spec }, context) => {
    const { serviceAccounts, principals } = spec.recipients;
    if (serviceAccounts.length + principals.length > 0) return;
    const message = 'names nobody: give serviceAccounts or principals, or remove the policy';
    context.addIssue({ code: 'custom', path: ['spec', 'recipients'], message });
  });

/** `trustDomain`: of service accounts, whose it need not be said. */
export function secretPolicyOf({ metadata, spec }: z.output<typeof secretPolicySchema>, trustDomain: string): SecretPolicy {
  const { serviceAccounts, principals } = spec.recipients;
  const ids = principals.map((text) => `spiffe://${text}`);
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    secrets: new Set(spec.secrets),
    ids: new Set([
      ...ids.filter((id) => !id.endsWith('*')),
      ...serviceAccounts.map((text) => {
        const [namespace = '', name = ''] = text.split('/');
        return workloadSpiffeId({ trustDomain, namespace, serviceAccount: name }).uri;
      }),
    ]),
    prefixes: ids.filter((id) => id.endsWith('*')).map((id) => id.slice(0, -1)),
    recipients: [...serviceAccounts, ...principals],
  };
}
