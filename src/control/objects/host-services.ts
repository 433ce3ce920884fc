// Services whose only servers are pods on their node's network: no workloads of the mesh, so such a service would have an address and nobody behind it.

import type { KubeReading } from './kube-kinds.ts';
import type { ObjectEntry } from './object-kinds.ts';

/** Left out, they follow outboundTrafficPolicy like anything that is not registered. One that a pod of the mesh serves too stays, with that pod alone. */
export function withoutHostServices(entries: readonly ObjectEntry[], readings: readonly KubeReading[]): readonly ObjectEntry[] {
  const onHosts = groupByNamespace(readings.flatMap(({ onHostNetwork }) => onHostNetwork ?? []));
  if (onHosts.size === 0) return entries;
  const inPods = groupByNamespace(
    entries.flatMap((entry) =>
      entry.kind === 'Pod'
        ? { namespace: entry.object.metadata.namespace, labels: new Map(Object.entries(entry.object.metadata.labels)) }
        : [],
    ),
  );
  return entries.filter((entry) => {
    if (entry.kind !== 'Service') return true;
    const { namespace } = entry.object.metadata;
    const selector = Object.entries(entry.object.spec.selector ?? {});
    const selected = (labels: ReadonlyMap<string, unknown>) => selector.every(([key, value]) => labels.get(key) === value);
    return !(onHosts.get(namespace) ?? []).some(selected) || (inPods.get(namespace) ?? []).some(selected);
  });
}

interface Labelled {
  readonly namespace: string;
  readonly labels: ReadonlyMap<string, unknown>;
}

function groupByNamespace(all: readonly Labelled[]): Map<string, ReadonlyMap<string, unknown>[]> {
  const grouped = new Map<string, ReadonlyMap<string, unknown>[]>();
  for (const { namespace, labels } of all) {
    const group = grouped.get(namespace) ?? [];
    group.push(labels);
    grouped.set(namespace, group);
  }
  return grouped;
}
