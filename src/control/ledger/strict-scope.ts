// Which pods an operator means by a name: a pod, a service or a service account of a namespace.

import { HandfastError } from '../../errors.ts';
import type { Workload } from '../../policy/model.ts';
import type { Registry } from '../../policy/registry.ts';
import { workloadOf } from '../../spiffe/spiffe-id.ts';

const kinds = ['namespace', 'pod', 'service', 'service account'] as const;

export interface StrictScope {
  /** What the name was taken as. */
  readonly takenAs: (typeof kinds)[number];
  readonly pods: readonly Workload[];
}

/** `pod/NAME`, `service/NAME` and `serviceaccount/NAME` say which is meant. */
const PREFIXES: Readonly<Record<string, StrictScope['takenAs']>> = { pod: 'pod', service: 'service', serviceaccount: 'service account' };

/** `pods`: those that there are. Throws CONFIG_INVALID for a name that nothing has, or that means different pods by what it is taken as. */
export function strictScope(
  of: { pods: readonly Workload[]; registry: Pick<Registry, 'service'> },
  { namespace, workload }: { namespace: string; workload?: string | undefined },
): StrictScope {
  const pods = of.pods.filter((pod) => pod.namespace === namespace);
  if (pods.length === 0) throw new HandfastError('CONFIG_INVALID', `there is no pod in namespace ${namespace}`);
  if (workload === undefined) return { takenAs: 'namespace', pods };
  const [, prefix, name = workload] = /^([a-z]+)\/(.*)$/.exec(workload) ?? [];
  if (prefix !== undefined && PREFIXES[prefix] === undefined)
    throw new HandfastError('CONFIG_INVALID', `${workload}: accepted are NAME, ${Object.keys(PREFIXES).join('/NAME, ')}/NAME`);
  const found = readings(pods, { registry: of.registry, namespace, name }).filter(
    ({ takenAs, pods: meant }) => meant.length > 0 && (prefix === undefined || takenAs === PREFIXES[prefix]),
  );
  const [first, ...others] = found;
  if (first === undefined)
    throw new HandfastError(
      'CONFIG_INVALID',
      `${workload}: no pod, service with pods, or service account of namespace ${namespace} has that name`,
    );
  if (others.every((other) => samePods(other, first))) return first;
  const meanings = found.map(({ takenAs, pods: meant }) => `${takenAs.replace(' ', '')}/${name} (${meant.length} pods)`);
  throw new HandfastError('CONFIG_INVALID', `${workload} may mean different pods: say ${meanings.join(' or ')}`);
}

function readings(
  pods: readonly Workload[],
  { registry, namespace, name }: { registry: Pick<Registry, 'service'>; namespace: string; name: string },
): StrictScope[] {
  const isOfService = (pod: Workload) =>
    [...pod.services.keys()].some((key) => {
      const service = registry.service(key);
      return service?.name === name && service.namespace === namespace;
    });
  const isOfAccount = ({ identity }: Workload) => identity !== undefined && workloadOf(identity)?.serviceAccount === name;
  return [
    { takenAs: 'service', pods: pods.filter(isOfService) },
    { takenAs: 'service account', pods: pods.filter(isOfAccount) },
    { takenAs: 'pod', pods: pods.filter((pod) => pod.name === name) },
  ];
}

function samePods(one: StrictScope, other: StrictScope): boolean {
  return one.pods.length === other.pods.length && one.pods.every((pod) => other.pods.includes(pod));
}
