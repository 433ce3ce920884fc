// What every object has: names as Kubernetes allows them, labels, and the fields that its API server adds.

import { z } from 'zod';

const dnsLabel = z.string().regex(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/, "lower-case letters, digits and '-', at most 63");
const dnsName = z
  .string()
  .max(253)
  .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/, "lower-case letters, digits, '-' and '.'");

export const labels = z.record(z.string().min(1), z.string());
export const port = z.int().min(1).max(65535);

/** ObjectMeta. Fields that only an API server writes are accepted, so that the output of `kubectl get -o yaml` can be used. */
export const objectMeta = z.strictObject({
  name: dnsName,
  namespace: dnsLabel.default('default'),
  labels: labels.default({}),
  annotations: labels.default({}),
  // kubectl's dry run writes null.
  creationTimestamp: z.iso.datetime({ offset: true }).nullish(),
  uid: z.string().optional(),
  resourceVersion: z.string().optional(),
  generation: z.int().optional(),
  selfLink: z.string().optional(),
  deletionTimestamp: z.string().nullish(),
  deletionGracePeriodSeconds: z.int().nullish(),
  generateName: z.string().optional(),
  managedFields: z.array(z.unknown()).optional(),
  ownerReferences: z.array(z.unknown()).optional(),
  finalizers: z.array(z.string()).optional(),
});

export const serviceAccountName = dnsName;
