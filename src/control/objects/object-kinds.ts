// Every kind of object that is understood: its schema, and what is made of it.

import type { z } from 'zod';
import { authorizationPolicyOf, authorizationPolicySchema } from '../../policy/kinds/authorization-policy.ts';
import { destinationRuleOf, destinationRuleSchema } from '../../policy/kinds/destination-rule.ts';
import { endpointSliceOf, endpointSliceSchema } from '../../policy/kinds/endpoint-slice.ts';
import { meshConfigSchema } from '../../policy/kinds/mesh-config.ts';
import { peerAuthenticationOf, peerAuthenticationSchema } from '../../policy/kinds/peer-authentication.ts';
import { podSchema } from '../../policy/kinds/pod.ts';
import { requestAuthenticationOf, requestAuthenticationSchema } from '../../policy/kinds/request-authentication.ts';
import { scopeConfigOf, scopeConfigSchema } from '../../policy/kinds/scope-config.ts';
import { serviceSchema } from '../../policy/kinds/service.ts';
import { serviceEntrySchema } from '../../policy/kinds/service-entry.ts';

/** Where an object stands: `file:line`. */
export type Place = string;

type Reading<E> = { readonly entry: E } | { readonly issues: readonly z.core.$ZodIssue[] };

function reader<const K extends string, S extends z.ZodType, T>(kind: K, schema: S, make: (object: z.output<S>, document: unknown) => T) {
  return {
    schema,
    read(value: unknown, place: Place): Reading<{ readonly kind: K; readonly place: Place; readonly object: T }> {
      const result = schema.safeParse(value);
      return result.success ? { entry: { kind, place, object: make(result.data, value) } } : { issues: result.error.issues };
    },
  };
}

/** As it is: the schema made of it what is needed. */
const itself = <T>(object: T): T => object;

export const objectKinds = {
  MeshConfig: reader('MeshConfig', meshConfigSchema, ({ spec }) => spec),
  PeerAuthentication: reader('PeerAuthentication', peerAuthenticationSchema, peerAuthenticationOf),
  AuthorizationPolicy: reader('AuthorizationPolicy', authorizationPolicySchema, authorizationPolicyOf),
  DestinationRule: reader('DestinationRule', destinationRuleSchema, destinationRuleOf),
  RequestAuthentication: reader('RequestAuthentication', requestAuthenticationSchema, requestAuthenticationOf),
  ScopeConfig: reader('ScopeConfig', scopeConfigSchema, scopeConfigOf),
  ServiceEntry: reader('ServiceEntry', serviceEntrySchema, itself<z.output<typeof serviceEntrySchema>>),
  Pod: reader('Pod', podSchema, itself<z.output<typeof podSchema>>),
  Service: reader('Service', serviceSchema, itself<z.output<typeof serviceSchema>>),
  EndpointSlice: reader('EndpointSlice', endpointSliceSchema, endpointSliceOf),
} as const;

export type ObjectKind = keyof typeof objectKinds;
export type ObjectEntries = {
  readonly [K in ObjectKind]: Extract<ReturnType<(typeof objectKinds)[K]['read']>, { entry: unknown }>['entry'];
};
export type ObjectEntry = ObjectEntries[ObjectKind];

export function isObjectKind(name: unknown): name is ObjectKind {
  return typeof name === 'string' && Object.hasOwn(objectKinds, name);
}
