// The collections of an API server that control follows, and what is made of each object: an entry, or the reason why there is none.

import { createHash, generateKeyPairSync } from 'node:crypto';
import type { z } from 'zod';
import { messageOf } from '../../errors.ts';
import type { KubeObject } from '../../kube/api.ts';
import type { Pod } from '../../policy/kinds/pod.ts';
import { isJsonObject } from '../../spiffe/strict-json.ts';
import {
  hasEnded,
  isOnHostNetwork,
  podAddresses,
  projectEndpointSlice,
  projectPod,
  projectPolicy,
  projectService,
  serviceAddresses,
} from './kube-projection.ts';
import { type ObjectEntry, type ObjectKind, objectKinds } from './object-kinds.ts';
import { type StatusSubject, statusSubject } from './policy-status.ts';

export interface KubeKind {
  readonly kind: ObjectKind;
  /** The version that is preferred first; Istio's older releases serve the others alone. */
  readonly paths: readonly string[];
  /** People's, and may not be installed; the others are the cluster's own. */
  readonly isPolicy: boolean;
  /** Of labels: the others are not even sent. */
  readonly labelSelector?: string;
  readonly project: (object: KubeObject) => KubeObject | undefined;
}

const policy = (kind: ObjectKind, group: string, plural: string, ...versions: readonly string[]): KubeKind => ({
  kind,
  paths: versions.map((version) => `/apis/${group}/${version}/${plural}`),
  isPolicy: true,
  project: projectPolicy(kind),
});

export const kubeKinds: readonly KubeKind[] = [
  { kind: 'Pod', paths: ['/api/v1/pods'], isPolicy: false, project: projectPod },
  { kind: 'Service', paths: ['/api/v1/services'], isPolicy: false, project: projectService },
  {
    kind: 'EndpointSlice',
    paths: ['/apis/discovery.k8s.io/v1/endpointslices'],
    isPolicy: false,
    // Of Services with a selector the cluster's own controller makes slices of what we know from the pods: most slices there are.
    labelSelector: 'kubernetes.io/service-name,endpointslice.kubernetes.io/managed-by!=endpointslice-controller.k8s.io',
    project: projectEndpointSlice,
  },
  policy('PeerAuthentication', 'security.istio.io', 'peerauthentications', 'v1', 'v1beta1'),
  policy('AuthorizationPolicy', 'security.istio.io', 'authorizationpolicies', 'v1', 'v1beta1'),
  policy('RequestAuthentication', 'security.istio.io', 'requestauthentications', 'v1', 'v1beta1'),
  policy('DestinationRule', 'networking.istio.io', 'destinationrules', 'v1', 'v1beta1', 'v1alpha3'),
  policy('ServiceEntry', 'networking.istio.io', 'serviceentries', 'v1', 'v1beta1', 'v1alpha3'),
  policy('ScopeConfig', 'handfast.io', 'scopeconfigs', 'v1alpha1'),
  policy('MeshConfig', 'handfast.io', 'meshconfigs', 'v1alpha1'),
];

/** What stands for one object of the API server. */
export interface KubeReading {
  readonly name: string;
  /** Its last good version, or what stands in for one that never was. */
  readonly entry: ObjectEntry | undefined;
  readonly lastGood: ObjectEntry | undefined;
  /** Of what was read of it: an API server changes much that is nothing to a registry. */
  readonly digest: string;
  /** Unix milliseconds. */
  readonly createdAt: number;
  /** Addresses that are its own whether it is registered or not. */
  readonly addresses: readonly string[];
  /** Where it is told what became of it. */
  readonly status?: StatusSubject | undefined;
  /** Why the present version is not in force; empty if it is. */
  readonly problems: readonly string[];
  /** Of a pod on its node's network, which is no workload of the mesh; without the pod where that cannot be read. */
  readonly onHostNetwork?: { readonly pod: Pod | undefined };
}

/** Undefined for an object that is nothing to a registry. Never throws: one object must not keep all others from being followed. */
export function readKube(
  { kind, paths: [path = ''], isPolicy, project }: KubeKind,
  object: KubeObject,
  previous: KubeReading | undefined,
): KubeReading | undefined {
  if (kind === 'Pod' && hasEnded(object)) return undefined;
  const metadata = isJsonObject(object.metadata) ? object.metadata : {};
  const created = typeof metadata.creationTimestamp === 'string' ? Date.parse(metadata.creationTimestamp) : Number.NaN;
  const isOnHost = kind === 'Pod' && isOnHostNetwork(object);
  const known = {
    name: nameOf(kind, object),
    createdAt: Number.isNaN(created) ? Number.MAX_SAFE_INTEGER : created,
    addresses: kind === 'Service' ? serviceAddresses(object) : isOnHost ? podAddresses(object) : [],
    status: isPolicy ? statusSubject(statusPath(path, object), object) : undefined,
  };
  const lastGood = previous?.lastGood;
  const refused = (problems: readonly string[], digest: string): KubeReading => ({
    ...known,
    ...(isOnHost ? { onHostNetwork: { pod: undefined } } : {}),
    entry: lastGood ?? standIn(kind, object),
    lastGood,
    digest,
    problems,
  });
  try {
    const projected = project(object);
    if (projected === undefined) return { ...NOTHING, ...known };
    if (isDeeperThan(projected, MAX_DEPTH)) return refused([`the object is nested more than ${MAX_DEPTH} levels deep`], '');
    const digest = createHash('sha256').update(JSON.stringify(projected)).digest('base64');
    if (previous !== undefined && previous.digest === digest) return { ...previous, ...known };
    const reading = objectKinds[kind].read(projected, known.name);
    if (isOnHost) {
      const pod = 'entry' in reading && reading.entry.kind === 'Pod' ? reading.entry.object : undefined;
      return { ...NOTHING, ...known, digest, onHostNetwork: { pod } };
    }
    if ('entry' in reading) return { ...known, entry: reading.entry, lastGood: reading.entry, digest, problems: [] };
    return refused(reading.issues.map(issueText), digest);
  } catch (error) {
    return refused([messageOf(error)], '');
  }
}

const NOTHING = { entry: undefined, lastGood: undefined, digest: '', problems: [] };
/** No policy needs a tenth of it; what recurses has a stack that ends. */
const MAX_DEPTH = 100;

export function isDeeperThan(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((member) => isDeeperThan(member, levels - 1));
}

/** Of the version that the object came in. */
function statusPath(path: string, { apiVersion }: KubeObject): string {
  return typeof apiVersion === 'string' ? path.replace(/^\/apis\/[^/]+\/[^/]+/, `/apis/${apiVersion}`) : path;
}

/** What closes whom a policy selects. A DENY, because beside any ALLOW that can be read an ALLOW of nobody would be of no effect. */
const CLOSING: Readonly<Record<string, object>> = {
  AuthorizationPolicy: { action: 'DENY', rules: [{}] },
  PeerAuthentication: { mtls: { mode: 'STRICT' } },
  // An application may read tokens that it takes to be verified: until they are again, none passes. Nobody has this key's other half.
  RequestAuthentication: { jwtRules: [{ issuer: 'unreadable', jwks: JSON.stringify({ keys: [{ ...nobodysKey(), kid: 'nobody' }] }) }] },
};

function nobodysKey(): object {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' });
}

/** For a policy that cannot be read and never could: whom it selects is closed until it can be. To overlook it would open what it is meant to close. */
function standIn(kind: ObjectKind, object: KubeObject): ObjectEntry | undefined {
  const spec = isJsonObject(object.spec) ? object.spec : {};
  const { namespace, name, creationTimestamp } = isJsonObject(object.metadata) ? object.metadata : {};
  const head = { apiVersion: object.apiVersion, kind, metadata: { namespace, name, creationTimestamp } };
  const place = nameOf(kind, object);
  const wrapped = kind === 'ScopeConfig' && isJsonObject(spec.object) ? spec.object : {};
  const closing = kind === 'ScopeConfig' ? CLOSING[String(wrapped.kind)] : CLOSING[kind];
  if (closing === undefined) return undefined;
  const inner = { apiVersion: wrapped.apiVersion, kind: wrapped.kind, metadata: { name }, spec: closing };
  // Without its selector it closes its whole namespace.
  for (const selecting of spec.selector === undefined ? [{}] : [{ selector: spec.selector }, {}]) {
    try {
      const reading = objectKinds[kind].read(
        { ...head, spec: { ...selecting, ...(kind === 'ScopeConfig' ? { object: inner } : closing) } },
        place,
      );
      if ('entry' in reading) return reading.entry;
    } catch {
      // A selector that cannot even be looked at.
    }
  }
  return undefined;
}

function nameOf(kind: string, { metadata }: KubeObject): string {
  const { namespace, name } = isJsonObject(metadata) ? metadata : {};
  return namespace === undefined ? `${kind} ${String(name)}` : `${kind} ${String(namespace)}/${String(name)}`;
}

function issueText(issue: z.core.$ZodIssue): string {
  const path = issue.path.map(String).join('.') || 'the object';
  if (issue.code === 'unrecognized_keys') return `${path}: unknown field ${issue.keys.join(', ')}`;
  if (issue.code === 'invalid_value') return `${path}: accepted: ${issue.values.map(String).join(', ')}`;
  return `${path}: ${issue.message}`;
}
