// security.istio.io PeerAuthentication, as Istio validates it (https://istio.io/latest/docs/reference/config/security/peer_authentication/).

import { z } from 'zod';
import { type MutualTlsMode, mutualTlsModes } from '../model.ts';
import type { PeerAuthentication } from '../peer-authentication.ts';
import type { PolicyMeta } from '../policy-object.ts';
import { matchLabelsSelector, policyMetaOf, selectorOf, shadowableMeta, wrappedShadowableMeta } from './policy-meta.ts';

const mutualTls = z.strictObject({ mode: z.enum(['UNSET', ...mutualTlsModes]).default('UNSET') });

const spec = z
  .strictObject({
    selector: matchLabelsSelector.optional(),
    mtls: mutualTls.optional(),
    portLevelMtls: z
      .record(z.string().regex(/^(0|[1-9][0-9]*)$/, 'a port number from 1 to 65535, without leading zeros'), mutualTls)
      .optional(),
  })
  .refine(({ mtls, portLevelMtls }) => mtls !== undefined || portLevelMtls !== undefined, {
    // A file cut short looks like this, and reading it as "inherit" could switch STRICT off.
    message: 'sets no mode: give mtls.mode (UNSET inherits) or portLevelMtls',
  })
  .superRefine(({ selector, portLevelMtls }, context) => {
    const at = (message: string) => context.addIssue({ code: 'custom', path: ['portLevelMtls'], message });
    if (portLevelMtls === undefined) return;
    // It would stand in the way of younger policies of the workload, and say nothing.
    if (Object.keys(portLevelMtls).length === 0) at('names no port: remove it');
    if (Object.keys(selector?.matchLabels ?? {}).length === 0)
      at('portLevelMtls needs a selector with matchLabels: it cannot hold for a namespace or the mesh');
    for (const port of Object.keys(portLevelMtls))
      if (Number(port) < 1 || Number(port) > 65535) at(`port ${port}: from 1 to 65535 is accepted`);
  });

const head = {
  apiVersion: z.enum(['security.istio.io/v1', 'security.istio.io/v1beta1']),
  kind: z.literal('PeerAuthentication'),
};
const body = {
  spec,
  status: z.unknown().optional(),
};

export const peerAuthenticationSchema = z.strictObject({ ...head, metadata: shadowableMeta, ...body });
export const wrappedPeerAuthenticationSchema = z.strictObject({ ...head, metadata: wrappedShadowableMeta, ...body });

export function peerAuthenticationOf({ metadata, spec }: z.output<typeof peerAuthenticationSchema>): PeerAuthentication {
  return peerAuthenticationWith(policyMetaOf(metadata), spec);
}

export function peerAuthenticationWith(meta: PolicyMeta, of: z.output<typeof spec>): PeerAuthentication {
  return {
    ...meta,
    selector: selectorOf(of.selector),
    mode: modeOf(of.mtls),
    portModes: new Map(Object.entries(of.portLevelMtls ?? {}).map(([port, mtls]) => [Number(port), modeOf(mtls)])),
  };
}

function modeOf(mtls: { mode: 'UNSET' | MutualTlsMode } | undefined): MutualTlsMode | undefined {
  return mtls === undefined || mtls.mode === 'UNSET' ? undefined : mtls.mode;
}
