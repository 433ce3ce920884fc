// networking.istio.io DestinationRule: its TLS settings (https://istio.io/latest/docs/reference/config/networking/destination-rule/).

import { z } from 'zod';
import type { DestinationRule } from '../destination-rule.ts';
import type { ClientTlsSettings } from '../model.ts';
import { type PolicyMeta, sourceOf } from '../policy-object.ts';
import { clientTlsOf, clientTlsSettings } from './client-tls-settings.ts';
import { port } from './object-meta.ts';
import { enforcedMeta, matchLabelsSelector, policyMetaOf, selectorOf, wrappedEnforcedMeta } from './policy-meta.ts';
import { allUnsupported, unsupported } from './unsupported.ts';

const MAX_PORTS = 1000;

const host = z
  .string()
  .max(253)
  .regex(
    /^(\*|(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\.?)$/i,
    'a host name, "*.suffix" or "*"; a wildcard stands only at the beginning',
  );

const trafficFields = allUnsupported(
  ['loadBalancer', 'connectionPool', 'outlierDetection'],
  'only TLS is set by a DestinationRule here: connections go to the least loaded endpoint; remove it',
);

const trafficPolicy = z
  .strictObject({
    tls: clientTlsSettings.optional(),
    portLevelSettings: z
      .array(z.strictObject({ port: z.strictObject({ number: port }), tls: clientTlsSettings, ...trafficFields }))
      .max(MAX_PORTS, `more than ${MAX_PORTS} ports`)
      .default([])
      .superRefine((settings, context) => {
        settings.forEach((setting, index) => {
          const first = settings.findIndex((other) => other.port.number === setting.port.number);
          if (first !== index)
            context.addIssue({
              code: 'custom',
              path: [index, 'port'],
              message: `port ${setting.port.number} stands there already as ${first}`,
            });
        });
      }),
    ...trafficFields,
    ...allUnsupported(['tunnel', 'proxyProtocol', 'retryBudget'], 'it changes what is sent, which is not done here; remove it'),
  })
  .refine(
    ({ tls, portLevelSettings }) => tls !== undefined || portLevelSettings.length > 0,
    'is empty: give tls or portLevelSettings, or remove it',
  );

/** `*` is everybody, `.` the object's own namespace; other names would need a visibility that the registry has not. */
export const exportTo = z
  .array(z.enum(['*', '.']))
  .max(1, 'one of "*" and "."')
  .default([]);

const spec = z
  .strictObject({
    host,
    trafficPolicy: trafficPolicy.optional(),
    exportTo,
    workloadSelector: matchLabelsSelector.optional(),
    subsets: unsupported('there are no routes that could name a subset; make a Service for each'),
  })
  .superRefine((of, context) => {
    if (of.workloadSelector !== undefined && of.exportTo[0] === '*')
      context.addIssue({
        code: 'custom',
        path: ['exportTo'],
        message: 'a rule with a workloadSelector holds in its own namespace: use "."',
      });
  });

const head = {
  apiVersion: z.enum(['networking.istio.io/v1', 'networking.istio.io/v1beta1', 'networking.istio.io/v1alpha3']),
  kind: z.literal('DestinationRule'),
};
const body = {
  spec,
  status: z.unknown().optional(),
};

export const destinationRuleSchema = z.strictObject({ ...head, metadata: enforcedMeta, ...body });
export const wrappedDestinationRuleSchema = z.strictObject({ ...head, metadata: wrappedEnforcedMeta, ...body });

export function destinationRuleOf({ metadata, spec }: z.output<typeof destinationRuleSchema>): DestinationRule {
  return destinationRuleWith(policyMetaOf(metadata), spec);
}

export function destinationRuleWith(meta: PolicyMeta, of: z.output<typeof spec>): DestinationRule {
  return {
    ...meta,
    selector: selectorOf(of.workloadSelector),
    host: fullHost(of.host, meta.namespace),
    settings: of.trafficPolicy === undefined ? undefined : settingsOf(of.trafficPolicy, sourceOf('DestinationRule', meta)),
    exported: of.exportTo[0] !== '.' && of.workloadSelector === undefined,
  };
}

/** A port's entry replaces what holds for the destination wholly. */
function settingsOf(of: z.output<typeof trafficPolicy>, source: string): ClientTlsSettings {
  return {
    tls: of.tls === undefined ? undefined : clientTlsOf(of.tls, source),
    ports: new Map(of.portLevelSettings.map(({ port, tls }) => [port.number, clientTlsOf(tls, `${source} port ${port.number}`)])),
  };
}

/** A name without a dot is one of the rule's own namespace; others are taken as they stand. */
function fullHost(host: string, namespace: string): string {
  const name = host.toLowerCase().replace(/\.$/, '');
  return name.includes('.') || name === '*' ? name : `${name}.${namespace}.svc.cluster.local`;
}
