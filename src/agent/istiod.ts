// istiod in control's place: its workloads and authorizations by delta ADS, as its ambient mode serves them to ztunnel; it has no word for switches, so everybody's is PERMISSIVE and
// what is to be STRICT comes as an Authorization that istiod has converted.

import { networkInterfaces } from 'node:os';
import { runDeltaAdsClient } from '../discovery/delta-ads-client.ts';
import type { ResourceChange } from '../discovery/resource-cache.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import { decodeAddress, encodeTrafficPolicy } from '../discovery/workload-codec.ts';
import { HandfastError } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { TrafficPolicy } from '../policy/model.ts';
import type { Snapshot } from '../snapshot.ts';
import { parseStrictObject } from '../spiffe/strict-json.ts';
import type { GrpcTarget } from '../wire/grpc-target.ts';
import { IstiodResources } from './istiod-resources.ts';

export interface IstiodOptions {
  readonly target: () => GrpcTarget;
  /** Our own service account's, for istiod's audience. */
  readonly token: Snapshot<string>;
  /** By what istiod calls the cluster that our pods are in. */
  readonly clusterId: string;
  /** Takes what is followed. */
  readonly mesh: { apply(typeUrl: string, change: ResourceChange): void };
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** Runs until the signal aborts. Throws CONFIG_INVALID for a token of no service account. */
export function followIstiod({ mesh, clusterId, ...options }: IstiodOptions): Promise<void> {
  const resources = new IstiodResources({ clusterId, log: options.log });
  // Istiod serves nobody who says another namespace than his token does.
  const namespace = namespaceOf(options.token.current ?? '');
  // A node of a type that istiod knows, with an address that it never dials.
  const nodeId = `ztunnel~${ownAddress()}~handfast-agent.${namespace}~${namespace}.svc.cluster.local`;
  return runDeltaAdsClient({
    ...options,
    nodeId,
    typeUrls: [typeUrls.address, typeUrls.authorization],
    apply: (typeUrl, change) => {
      if (typeUrl !== typeUrls.address) {
        mesh.apply(typeUrl, resources.authorizations(change));
        return;
      }
      const addresses = resources.addresses(change);
      // Before its workload, so that nobody finds one that nothing is known of.
      mesh.apply(typeUrls.trafficPolicy, permissiveFor(addresses));
      mesh.apply(typeUrl, addresses);
    },
  });
}

function permissiveFor({ upserts, removed }: ResourceChange): ResourceChange {
  const policies = new Map<string, Uint8Array>();
  for (const [name, bytes] of upserts) {
    const { kind, value } = decodeAddress(bytes);
    if (kind === 'workload') policies.set(name, encodeTrafficPolicy({ ...PERMISSIVE, workload: value.uid }));
  }
  // Of services nothing was said.
  return { upserts: policies, removed };
}

const PERMISSIVE: Omit<TrafficPolicy, 'workload'> = {
  inbound: { mode: 'PERMISSIVE', source: 'istiod' },
  inboundPorts: new Map(),
  outbound: 'ALLOW_ANY',
  announced: undefined,
  shadow: undefined,
  clientTls: [],
  rootClientTls: [],
  trustDomainAliases: [],
};

/** Of our own token, which istiod proves. */
function namespaceOf(token: string): string {
  try {
    const { sub } = parseStrictObject(Buffer.from(token.split('.')[1] ?? '', 'base64url'));
    const [, namespace] = /^system:serviceaccount:([a-z0-9-]+):[a-z0-9.-]+$/.exec(String(sub)) ?? [];
    if (namespace !== undefined) return namespace;
  } catch {
    // It is no JWT at all.
  }
  throw new HandfastError(
    'CONFIG_INVALID',
    "--control-token-file holds no service account's token: project one for istiod's audience, istio-ca",
  );
}

function ownAddress(): string {
  const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
  return all.find(({ internal }) => !internal)?.address ?? '127.0.0.1';
}
