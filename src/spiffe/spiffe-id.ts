// SPIFFE IDs, parsed once and compared as text (https://spiffe.io/docs/latest/spiffe-specs/spiffe-id/).

import { HandfastError } from '../errors.ts';

/** A SPIFFE ID such as `spiffe://cluster.local/ns/foo/sa/sleep`. `uri` is the whole, canonical text. */
export interface SpiffeId {
  readonly uri: string;
  readonly trustDomain: string;
  readonly path: string;
}

const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/;
const ID = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[A-Za-z0-9._-]+)*)$/;
const SEGMENT = /^[A-Za-z0-9._-]+$/;
const WORKLOAD_PATH = /^\/ns\/([^/]+)\/sa\/([^/]+)$/;
const MAX_BYTES = 2048;

/** Throws SPIFFE_ID_INVALID for anything but an anchored, canonical SPIFFE ID. */
export function parseSpiffeId(uri: string): SpiffeId {
  const match = uri.length <= MAX_BYTES ? ID.exec(uri) : null;
  const [, trustDomain, path] = match ?? [];
  if (trustDomain === undefined || path === undefined || path.split('/').some((s) => s === '.' || s === '..')) {
    throw new HandfastError('SPIFFE_ID_INVALID', `not a SPIFFE ID: ${JSON.stringify(uri.slice(0, 200))}`);
  }
  return Object.freeze({ uri, trustDomain, path });
}

/** Throws CONFIG_INVALID unless the name may stand in `spiffe://<name>/`. */
export function parseTrustDomain(name: string): string {
  if (!TRUST_DOMAIN.test(name)) {
    throw new HandfastError('CONFIG_INVALID', `trust domain ${JSON.stringify(name)}: use lower-case letters, digits, '.', '-' and '_'`);
  }
  return name;
}

/** The ID of a Kubernetes-style workload: `spiffe://<trustDomain>/ns/<namespace>/sa/<serviceAccount>`. Throws SPIFFE_ID_INVALID. */
export function workloadSpiffeId(of: { trustDomain: string; namespace: string; serviceAccount: string }): SpiffeId {
  // Each part is one part: a slash in a name must not become a path of its own.
  if (!TRUST_DOMAIN.test(of.trustDomain) || !SEGMENT.test(of.namespace) || !SEGMENT.test(of.serviceAccount)) {
    throw new HandfastError('SPIFFE_ID_INVALID', `no SPIFFE ID can be made of ${JSON.stringify(of)}`);
  }
  return parseSpiffeId(`spiffe://${of.trustDomain}/ns/${of.namespace}/sa/${of.serviceAccount}`);
}

/** Namespace and service account of a workload's ID; undefined for IDs of another shape. */
export function workloadOf(id: SpiffeId): { namespace: string; serviceAccount: string } | undefined {
  const [, namespace, serviceAccount] = WORKLOAD_PATH.exec(id.path) ?? [];
  return namespace === undefined || serviceAccount === undefined ? undefined : { namespace, serviceAccount };
}
