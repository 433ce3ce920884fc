// Services whose only servers are pods on their node's network: no workloads of the mesh, but endpoints all the same, as an EndpointSlice would say them.

import type { EndpointSlice } from '../../policy/kinds/endpoint-slice.ts';
import { isHealthy, type Pod, podAddresses } from '../../policy/kinds/pod.ts';
import { type ServiceObject, targetPortOf, tcpPorts } from '../../policy/kinds/service.ts';
import type { KubeReading } from './kube-kinds.ts';
import type { ObjectEntry } from './object-kinds.ts';

interface Made {
  readonly service: ServiceObject;
  readonly pods: readonly Pod[];
  readonly entries: readonly ObjectEntry[];
}

export class HostServices {
  /** By service: what did not change stays the same object. */
  #made = new Map<string, Made>();

  /** The entries, and a slice for each such service. One that a pod of the mesh serves too stays, with that pod alone. */
  withEndpoints(entries: readonly ObjectEntry[], readings: readonly KubeReading[]): readonly ObjectEntry[] {
    const onHosts = groupByNamespace(readings.flatMap(({ onHostNetwork }) => onHostNetwork?.pod ?? []));
    const made = new Map<string, Made>();
    if (onHosts.size > 0) {
      const inPods = groupByNamespace(entries.flatMap((entry) => (entry.kind === 'Pod' ? [entry.object] : [])));
      for (const entry of entries) {
        if (entry.kind !== 'Service') continue;
        const { namespace, name } = entry.object.metadata;
        const selector = Object.entries(entry.object.spec.selector ?? {});
        if (selector.length === 0) continue;
        const isSelected = ({ metadata: { labels } }: Pod) => selector.every(([key, value]) => labels[key] === value);
        const pods = (onHosts.get(namespace) ?? []).filter(isSelected);
        if (pods.length === 0 || (inPods.get(namespace) ?? []).some(isSelected)) continue;
        const key = `${namespace}/${name}`;
        const known = this.#made.get(key);
        const isSame = known?.service === entry.object && sameList(known.pods, pods);
        made.set(key, isSame ? known : { service: entry.object, pods, entries: slicesOf(entry.object, pods) });
      }
    }
    this.#made = made;
    return [...entries, ...[...made.values()].flatMap((one) => one.entries)];
  }
}

/** One for each set of target ports: names of ports are each pod's own. */
function slicesOf(service: ServiceObject, pods: readonly Pod[]): ObjectEntry[] {
  const { namespace, name } = service.metadata;
  const slices = new Map<string, { endpoints: EndpointSlice['endpoints'][number][]; ports: Map<string, number> }>();
  for (const pod of pods) {
    const ports = tcpPorts(service).flatMap((port) => {
      const target = targetPortOf(port, pod);
      return target === undefined ? [] : [[port.name ?? '', target] as const];
    });
    const key = JSON.stringify(ports);
    const slice = slices.get(key) ?? { endpoints: [], ports: new Map(ports) };
    const state = isHealthy(pod) ? 'ready' : 'away';
    slice.endpoints.push(...podAddresses(pod).map((address) => ({ address, state }) as const));
    slices.set(key, slice);
  }
  return [...slices.values()].map((slice, index) => {
    const place = `Service ${namespace}/${name}`;
    return { kind: 'EndpointSlice', place, object: { namespace, name: `${name}/${index}`, service: name, ...slice, ofHosts: true } };
  });
}

function groupByNamespace(pods: readonly Pod[]): Map<string, Pod[]> {
  const grouped = new Map<string, Pod[]>();
  for (const pod of pods) {
    const group = grouped.get(pod.metadata.namespace) ?? [];
    group.push(pod);
    grouped.set(pod.metadata.namespace, group);
  }
  return grouped;
}

function sameList(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((one, index) => one === b[index]);
}
