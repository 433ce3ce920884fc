// networking.istio.io ServiceEntry with fixed addresses (https://istio.io/latest/docs/reference/config/networking/service-entry/).

import { z } from 'zod';
import { messageOf } from '../../errors.ts';
import { parseSpiffeId } from '../../spiffe/spiffe-id.ts';
import { labels, port, serviceAccountName } from './object-meta.ts';
import { readIp, tlsModeLabels } from './pod.ts';
import { enforcedMeta } from './policy-meta.ts';
import { allUnsupported, unsupported } from './unsupported.ts';

const MAX_ENTRIES = 10_000;

const address = z.string().transform(readIp);

const ownAddress = z
  .string()
  .max(64, 'no IP address is so long')
  .superRefine((text, context) => {
    if (text.includes('/'))
      context.addIssue({
        code: 'custom',
        message: `${text}: a CIDR block is not supported: name each address, as connections are told apart by it`,
      });
  })
  .pipe(z.string().transform(readIp));

const host = z
  .string()
  .max(253)
  .regex(
    /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/,
    'a host name in lower case; wildcards are not supported, because destinations are known by address here',
  );

const resolution = z
  .enum(['STATIC', 'NONE', 'DNS', 'DNS_ROUND_ROBIN', 'DYNAMIC_DNS'])
  .default('NONE')
  .superRefine((mode, context) => {
    if (mode === 'STATIC') return;
    const why =
      mode === 'NONE'
        ? 'it means wherever the client was going, and destinations are known by address here; give STATIC, addresses and endpoints'
        : 'names are not looked up here: destinations are known by address; give STATIC and the addresses as endpoints';
    context.addIssue({ code: 'custom', message: `${mode} is not supported: ${why}` });
  });

const ports = z
  .array(
    z.strictObject({
      number: port,
      name: z.string().min(1),
      // As Istio reads it, in any case.
      protocol: z
        .string()
        .toUpperCase()
        .pipe(z.enum(['TCP', 'TLS', 'HTTP', 'HTTPS', 'HTTP2', 'GRPC', 'GRPC-WEB', 'MONGO', 'MYSQL', 'REDIS', 'UDP']))
        .refine((protocol) => protocol !== 'UDP', 'UDP is not supported: it does not go through the sidecar; remove the port')
        .default('TCP'),
      targetPort: port.optional(),
    }),
  )
  .max(MAX_ENTRIES)
  .default([])
  .superRefine((all, context) => {
    const seen = new Set<number | string>();
    all.forEach((one, index) => {
      for (const field of ['number', 'name'] as const) {
        if (seen.has(one[field])) context.addIssue({ code: 'custom', path: [index, field], message: `${one[field]} stands there already` });
        seen.add(one[field]);
      }
    });
  });

const endpoint = z.strictObject({
  address,
  ports: z.record(z.string(), port).default({}),
  labels: labels.default({}).superRefine(tlsModeLabels),
  serviceAccount: serviceAccountName.optional(),
  ...allUnsupported(['network', 'locality', 'weight'], 'connections go to the least loaded endpoint of one network; remove it'),
});

export const serviceEntrySchema = z.strictObject({
  apiVersion: z.enum(['networking.istio.io/v1', 'networking.istio.io/v1beta1', 'networking.istio.io/v1alpha3']),
  kind: z.literal('ServiceEntry'),
  metadata: enforcedMeta,
  spec: z
    .strictObject({
      hosts: z.array(host).min(1, 'at least one host').max(MAX_ENTRIES),
      addresses: z.array(ownAddress).max(MAX_ENTRIES).default([]),
      ports,
      location: z.enum(['MESH_EXTERNAL', 'MESH_INTERNAL']).default('MESH_EXTERNAL'),
      resolution,
      endpoints: z.array(endpoint).max(MAX_ENTRIES).default([]),
      subjectAltNames: z
        .array(z.string())
        .max(MAX_ENTRIES)
        .default([])
        .superRefine((names, context) => {
          names.forEach((name, index) => {
            try {
              parseSpiffeId(name);
            } catch (error) {
              context.addIssue({ code: 'custom', path: [index], message: `${messageOf(error)}; DNS names stand in a DestinationRule` });
            }
          });
        }),
      exportTo: z
        .array(z.enum(['*'], 'only "*": what is registered is known to everybody here'))
        .max(1)
        .default([]),
      workloadSelector: unsupported('there are no WorkloadEntries; name the endpoints, or use a Service for pods'),
    })
    .superRefine(({ ports, endpoints }, context) => {
      const names = new Set(ports.map(({ name }) => name));
      endpoints.forEach((one, index) => {
        for (const name of Object.keys(one.ports)) {
          if (!names.has(name))
            context.addIssue({ code: 'custom', path: ['endpoints', index, 'ports', name], message: 'is no port of this ServiceEntry' });
        }
      });
    }),
  status: z.unknown().optional(),
});

export type ServiceEntry = z.output<typeof serviceEntrySchema>;
