// handfast.io MeshConfig: what holds for the mesh as a whole. One object, or none for the defaults.

import { z } from 'zod';
import { outboundTrafficPolicies } from '../model.ts';
import { objectMeta } from './object-meta.ts';

export const meshConfigSchema = z.strictObject({
  apiVersion: z.enum(['handfast.io/v1alpha1']),
  kind: z.literal('MeshConfig'),
  metadata: objectMeta,
  spec: z.strictObject({
    /** Where mesh-wide policies live. */
    rootNamespace: z.string().min(1).default('istio-system'),
    outboundTrafficPolicy: z.strictObject({ mode: z.enum(outboundTrafficPolicies) }).default({ mode: 'ALLOW_ANY' }),
  }),
});

export type MeshConfig = z.infer<typeof meshConfigSchema>['spec'];

export const defaultMeshConfig: MeshConfig = { rootNamespace: 'istio-system', outboundTrafficPolicy: { mode: 'ALLOW_ANY' } };
