// handfast.io MeshConfig: what holds for the mesh as a whole. One object, or none for the defaults.

import { z } from 'zod';
import { outboundTrafficPolicies } from '../model.ts';
import { objectMeta } from './object-meta.ts';

/** Each principal of a policy is said once for each of them. */
const MAX_ALIASES = 16;

export const meshConfigSchema = z.strictObject({
  apiVersion: z.enum(['handfast.io/v1alpha1']),
  kind: z.literal('MeshConfig'),
  metadata: objectMeta,
  spec: z.strictObject({
    /** Where mesh-wide policies live. */
    rootNamespace: z.string().min(1).default('istio-system'),
    outboundTrafficPolicy: z.strictObject({ mode: z.enum(outboundTrafficPolicies) }).default({ mode: 'ALLOW_ANY' }),
    /** Further names of this trust domain: in an AuthorizationPolicy's principals, each stands for all of them. */
    trustDomainAliases: z
      .array(z.string().regex(/^[a-z0-9._-]{1,255}$/, "a trust domain: lower-case letters, digits, '.', '-' and '_'"))
      .max(MAX_ALIASES, `more than ${MAX_ALIASES} aliases`)
      .default([]),
  }),
});

export type MeshConfig = z.infer<typeof meshConfigSchema>['spec'];

export const defaultMeshConfig: MeshConfig = {
  rootNamespace: 'istio-system',
  outboundTrafficPolicy: { mode: 'ALLOW_ANY' },
  trustDomainAliases: [],
};
