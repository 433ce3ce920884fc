// What a sidecar cannot be put beside, or would not protect: each said with the field and one way out; the other one is to leave the pod out of the mesh.

import { INIT_CONTAINER, MESH_LABELS, PROXY_ID, ROOTS, SIDECAR_CONTAINER, SIDECAR_PORTS, STATUS, VOLUME_PREFIX } from './own-parts.ts';
import { allContainers, annotationsOf, labelsOf, type Pod } from './pod.ts';
import type { Settings } from './settings.ts';

const OTHER_MESHES = ['istio-proxy', 'linkerd-proxy'];
const POD_SECURITY = 'pod-security.kubernetes.io/enforce';

/** Empty if nothing is against it. */
export function objections(of: { pod: Pod; namespaceLabels: Readonly<Record<string, string>>; identity: Settings['identity'] }): string[] {
  const { pod } = of;
  return [
    ...reservedNames(pod),
    ...reservedMounts(pod),
    ...otherMeshes(pod),
    ...platform(pod),
    ...proxyIds(pod),
    ...sidecarPorts(pod),
    ...meshLabels(pod),
    ...podSecurity(of),
  ];
}

/** A pod that was injected is not asked; this one only looks so, and what bears our names in it is none of ours. */
function reservedNames(pod: Pod): string[] {
  const containers = allContainers(pod)
    .filter(({ container: { name } }) => name === INIT_CONTAINER || name === SIDECAR_CONTAINER)
    .map(({ container, field }) => `${field}.name: ${container.name}`);
  const volumes = (pod.spec.volumes ?? []).flatMap(({ name }, index) =>
    name.startsWith(VOLUME_PREFIX) ? [`spec.volumes[${index}].name: ${name}`] : [],
  );
  const found = [...containers, ...volumes].map((what) => `${what} is a reserved name`);
  if (annotationsOf(pod)[STATUS] !== undefined) found.push(`annotation ${STATUS} is reserved: it claims a sidecar that is not there`);
  if (annotationsOf(pod)[ROOTS] !== undefined)
    found.push(`annotation ${ROOTS} is reserved: whom the sidecar trusts is not the pod's to say`);
  return found.map((what) => `${what}; inject the pod as it was written, without anything that an injector put in`);
}

/** Whoever mounts what is ours has the sidecar's token, or can put a socket of his own in the agent's place. */
function reservedMounts(pod: Pod): string[] {
  const ephemeral = (pod.spec.ephemeralContainers ?? []).map((container, index) => ({
    container,
    field: `spec.ephemeralContainers[${index}]`,
  }));
  return [...allContainers(pod), ...ephemeral].flatMap(({ container, field }) =>
    (['volumeMounts', 'volumeDevices'] as const).flatMap((list) =>
      (container[list] ?? []).flatMap(({ name }, index) =>
        name.startsWith(VOLUME_PREFIX)
          ? [
              `${field}.${list}[${index}].name: ${name} is a reserved name, and the volume is the sidecar's alone: mount one of the pod's own`,
            ]
          : [],
      ),
    ),
  );
}

function otherMeshes(pod: Pod): string[] {
  return allContainers(pod)
    .filter(({ container }) => OTHER_MESHES.includes(container.name))
    .map(({ container, field }) => `${field}.name: ${container.name} is another mesh's sidecar: take the pod out of that mesh`);
}

function platform({ spec }: Pod): string[] {
  const found: string[] = [];
  if (spec.hostNetwork === true)
    found.push(`spec.hostNetwork: true is the node's network, which is not to be redirected: use the pod's own`);
  const os = spec.os?.name ?? spec.nodeSelector?.['kubernetes.io/os'] ?? spec.nodeSelector?.['beta.kubernetes.io/os'] ?? 'linux';
  if (os !== 'linux') found.push(`the pod is for ${os} (spec.os, spec.nodeSelector), and the sidecar for Linux: move it there`);
  return found;
}

/** Connections of this uid or gid are not redirected: such an application would speak plaintext past its sidecar. */
function proxyIds(pod: Pod): string[] {
  return allContainers(pod).flatMap(({ container, field }) =>
    (['runAsUser', 'runAsGroup'] as const).flatMap((which) => {
      const own = container.securityContext?.[which] ?? undefined;
      if ((own ?? pod.spec.securityContext?.[which]) !== PROXY_ID) return [];
      const where = own === undefined ? 'spec' : field;
      return [
        `${where}.securityContext.${which}: ${PROXY_ID} is the sidecar's, which capture exempts, and ${container.name} would run as it: take another id`,
      ];
    }),
  );
}

function sidecarPorts(pod: Pod): string[] {
  return allContainers(pod).flatMap(({ container, field }) =>
    (container.ports ?? []).flatMap(({ containerPort, protocol }, index) =>
      SIDECAR_PORTS.includes(containerPort) && (protocol ?? 'TCP') === 'TCP'
        ? [`${field}.ports[${index}].containerPort: ${containerPort} is the sidecar's: take another port`]
        : [],
    ),
  );
}

/** Peers believe them: a pod that says something else than what it gets would not be reached. */
function meshLabels(pod: Pod): string[] {
  return Object.entries(MESH_LABELS).flatMap(([label, wanted]) => {
    const value = labelsOf(pod)[label] ?? wanted;
    return value === wanted
      ? []
      : [`label ${label}: ${JSON.stringify(value)} contradicts the sidecar, which makes it "${wanted}": remove it`];
  });
}

/** Said here, where the way out can be said too: the API server would name a container that nobody has written. */
function podSecurity({
  namespaceLabels,
  identity,
}: {
  namespaceLabels: Readonly<Record<string, string>>;
  identity: Settings['identity'];
}): string[] {
  const level = namespaceLabels[POD_SECURITY];
  if (level === undefined || level === 'privileged') return [];
  const wayOut = `label the namespace ${POD_SECURITY}: privileged`;
  if (level !== 'baseline' && level !== 'restricted')
    return [`the namespace's label ${POD_SECURITY}: ${JSON.stringify(level)} is no level of Pod Security: ${wayOut}`];
  return [
    `the namespace enforces the Pod Security level ${level}, which forbids what redirects the pod's traffic (${INIT_CONTAINER}: NET_ADMIN and NET_RAW as uid 0)${identity === 'agent' ? " and the node agent's socket (hostPath)" : ''}: ${wayOut}`,
  ];
}
