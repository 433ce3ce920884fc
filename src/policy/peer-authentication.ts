// Which mTLS mode holds for a workload and port: Istio's PeerAuthentication, mesh < namespace < workload < port, the oldest wins within a scope
// (https://istio.io/latest/docs/reference/config/security/peer_authentication/).

import type { MutualTlsMode, TlsSwitch } from './model.ts';

/** A PeerAuthentication, parsed. No mode means UNSET: inherit. An absent selector means the whole namespace. */
export interface PeerAuthentication {
  readonly name: string;
  readonly namespace: string;
  readonly createdAt: number;
  readonly selector: ReadonlyMap<string, string> | undefined;
  readonly mode: MutualTlsMode | undefined;
  readonly portModes: ReadonlyMap<number, MutualTlsMode | undefined>;
}

/** Mode for the workload as a whole, and for the ports that differ in name or source. */
export interface ResolvedPeerAuthentication {
  readonly inbound: TlsSwitch;
  readonly inboundPorts: ReadonlyMap<number, TlsSwitch>;
}

/** Istio's default where nobody says anything. */
const DEFAULT: TlsSwitch = Object.freeze({ mode: 'PERMISSIVE', source: 'default' });

export function resolvePeerAuthentication(
  all: readonly PeerAuthentication[],
  subject: { rootNamespace: string; namespace: string; labels: ReadonlyMap<string, string> },
): ResolvedPeerAuthentication {
  const wide = (namespace: string) => oldest(all.filter((object) => object.namespace === namespace && object.selector === undefined));
  const mesh = wide(subject.rootNamespace);
  const namespace = subject.namespace === subject.rootNamespace ? undefined : wide(subject.namespace);
  const workload = oldest(
    all.filter(
      (object) => object.namespace === subject.namespace && object.selector !== undefined && matches(object.selector, subject.labels),
    ),
  );
  const inbound = [mesh, namespace, workload].reduce<TlsSwitch>(
    (inherited, object) => (object?.mode === undefined ? inherited : { mode: object.mode, source: sourceOf(object) }),
    DEFAULT,
  );
  const inboundPorts = new Map<number, TlsSwitch>();
  for (const [port, mode] of workload?.portModes ?? []) {
    if (workload !== undefined && mode !== undefined) inboundPorts.set(port, { mode, source: `${sourceOf(workload)} port ${port}` });
  }
  return { inbound, inboundPorts };
}

function oldest(candidates: readonly PeerAuthentication[]): PeerAuthentication | undefined {
  return [...candidates].sort((a, b) => a.createdAt - b.createdAt || (a.name < b.name ? -1 : 1))[0];
}

function matches(selector: ReadonlyMap<string, string>, labels: ReadonlyMap<string, string>): boolean {
  for (const [key, value] of selector) if (labels.get(key) !== value) return false;
  return true;
}

function sourceOf(object: PeerAuthentication): string {
  return `PeerAuthentication ${object.namespace}/${object.name}`;
}
