// security.istio.io PeerAuthentication, as Istio validates it (https://istio.io/latest/docs/reference/config/security/peer_authentication/).

import { z } from 'zod';
import { type MutualTlsMode, mutualTlsModes } from '../model.ts';
import type { PeerAuthentication } from '../peer-authentication.ts';
import { labels, objectMeta } from './object-meta.ts';

const mutualTls = z.strictObject({ mode: z.enum(['UNSET', ...mutualTlsModes]).default('UNSET') });

export const peerAuthenticationSchema = z
  .strictObject({
    apiVersion: z.enum(['security.istio.io/v1', 'security.istio.io/v1beta1']),
    kind: z.literal('PeerAuthentication'),
    metadata: objectMeta,
    spec: z
      .strictObject({
        selector: z.strictObject({ matchLabels: labels.default({}) }).optional(),
        mtls: mutualTls.optional(),
        portLevelMtls: z
          .record(z.string().regex(/^(0|[1-9][0-9]*)$/, 'a port number from 1 to 65535, without leading zeros'), mutualTls)
          .optional(),
      })
      .refine((spec) => spec.mtls !== undefined || spec.portLevelMtls !== undefined, {
        // A file cut short looks like this, and reading it as "inherit" could switch STRICT off.
        message: 'sets no mode: give mtls.mode (UNSET inherits) or portLevelMtls',
      }),
    status: z.unknown().optional(),
  })
  .superRefine(({ spec }, context) => {
    const at = (message: string) => context.addIssue({ code: 'custom', path: ['spec', 'portLevelMtls'], message });
    if (spec.portLevelMtls === undefined) return;
    if (Object.keys(spec.selector?.matchLabels ?? {}).length === 0)
      at('portLevelMtls needs a selector with matchLabels: it cannot hold for a namespace or the mesh');
    for (const port of Object.keys(spec.portLevelMtls))
      if (Number(port) < 1 || Number(port) > 65535) at(`port ${port}: from 1 to 65535 is accepted`);
  });

export function peerAuthenticationOf({ metadata, spec }: z.infer<typeof peerAuthenticationSchema>): PeerAuthentication {
  const selector = new Map(Object.entries(spec.selector?.matchLabels ?? {}));
  return {
    name: metadata.name,
    namespace: metadata.namespace,
    // Without a creation time an object counts as the newest; names settle ties.
    createdAt: metadata.creationTimestamp == null ? Number.MAX_SAFE_INTEGER : Date.parse(metadata.creationTimestamp),
    selector: selector.size === 0 ? undefined : selector,
    mode: modeOf(spec.mtls),
    portModes: new Map(Object.entries(spec.portLevelMtls ?? {}).map(([port, mtls]) => [Number(port), modeOf(mtls)])),
  };
}

function modeOf(mtls: { mode: 'UNSET' | MutualTlsMode } | undefined): MutualTlsMode | undefined {
  return mtls === undefined || mtls.mode === 'UNSET' ? undefined : mtls.mode;
}
