// A pod to the same pod in the mesh: pure, and one and the same for the webhook and for `handfast inject`.

import { HandfastError } from '../errors.ts';
import { differences, formerOf, isInPlace } from './already-injected.ts';
import type { CaptureArguments } from './capture.ts';
import { type InjectorConfig, revisionOf } from './config.ts';
import { decide } from './decision.ts';
import { initContainer } from './init-container.ts';
import { objections } from './objections.ts';
import { MESH_LABELS, OPT_OUT, ROOTS, STATUS } from './own-parts.ts';
import { annotationsOf, labelsOf, type Pod, readPod } from './pod.ts';
import { rewriteProbes } from './probes.ts';
import { readSettings, type Settings } from './settings.ts';
import { sidecarContainer } from './sidecar-container.ts';
import { ownVolumes } from './volumes.ts';

/** `skipped`: it stays as it is. `refused`: it must not run as it is, and `reason` names the field and the way out. */
export type Injection =
  | { readonly kind: 'injected'; readonly pod: Pod }
  | { readonly kind: 'skipped'; readonly reason: string }
  | { readonly kind: 'refused'; readonly reason: string };

export interface InjectionOf {
  /** Parsed JSON of a Pod, or of a pod template; it is not changed. */
  readonly pod: unknown;
  readonly namespace: string;
  readonly namespaceLabels: Readonly<Record<string, string>>;
  readonly config: InjectorConfig;
  /** The mesh's roots as PEM, for sidecars that begin without an agent; undefined while there are none. */
  readonly roots?: string | undefined;
  readonly captureArguments: CaptureArguments;
}

export function injectPod(of: InjectionOf): Injection {
  const { config, namespaceLabels } = of;
  let wayOut = '';
  try {
    const pod = readPod(of.pod);
    const { injects, because } = decide({ ...of, pod });
    if (!injects) return { kind: 'skipped', reason: because };
    wayOut = `; ${OPT_OUT}`;
    const settings = readSettings({ ...of, pod });
    const former = formerOf(pod, config);
    const bare = former?.pod ?? pod;
    const against = objections({ pod: bare, namespaceLabels, identity: settings.identity });
    if (settings.identity === 'in-pod' && of.roots === undefined)
      against.push(`the mesh's roots are not there yet (${config.inPod?.rootsFile}), and a sidecar without an agent needs them: try again`);
    // Another image of ours than would be put in now is what an injector before or after this one has put in.
    const after =
      against.length > 0
        ? pod
        : withSidecar(bare, { settings: { ...settings, image: former?.image ?? settings.image }, config, roots: of.roots });
    if (former !== undefined && against.length === 0) {
      const differing = differences({ written: after, found: pod });
      if (differing.length > 0) against.push(notAsWritten(differing));
      else if (isInPlace({ written: after, found: pod })) return { kind: 'skipped', reason: 'the sidecar is there already' };
    }
    if (against.length > 0) return { kind: 'refused', reason: against.join('; ') + wayOut };
    return { kind: 'injected', pod: after };
  } catch (error) {
    if (error instanceof HandfastError && error.code === 'OBJECT_INVALID') return { kind: 'refused', reason: error.message + wayOut };
    throw error;
  }
}

function notAsWritten(differing: readonly string[]): string {
  return `the pod claims a sidecar, but under its reserved names stands something else than is put in here (${differing.join(', ')}); inject the pod as it was written, without anything that an injector put in`;
}

function withSidecar(
  pod: Pod,
  { settings, config, roots }: { settings: Settings; config: InjectorConfig; roots: string | undefined },
): Pod {
  const { initContainers, containers, probers } = settings.rewriteProbes
    ? rewriteProbes(pod, settings.sidecar)
    : { initContainers: pod.spec.initContainers ?? [], containers: pod.spec.containers, probers: {} };
  const init = initContainer({ settings, config });
  const sidecar = sidecarContainer({ settings, config, probers });
  const volumes = ownVolumes(config, settings.identity);
  // A native sidecar serves the pod's own init containers too; a classic one starts behind them, so they run before anything is redirected.
  const placed =
    settings.sidecar === 'native'
      ? { initContainers: [init, sidecar, ...initContainers], containers: [...containers] }
      : { initContainers: [...initContainers, init], containers: [sidecar, ...containers] };
  const status = {
    initContainers: settings.sidecar === 'native' ? [init.name, sidecar.name] : [init.name],
    containers: settings.sidecar === 'native' ? [] : [sidecar.name],
    volumes: volumes.map(({ name }) => name),
    revision: revisionOf(config),
  };
  const first = pod.spec.containers[0]?.name ?? '';
  return {
    ...pod,
    metadata: {
      ...pod.metadata,
      labels: { ...labelsOf(pod), ...MESH_LABELS },
      annotations: {
        'kubectl.kubernetes.io/default-container': first,
        'kubectl.kubernetes.io/default-logs-container': first,
        ...annotationsOf(pod),
        ...(settings.identity === 'in-pod' && roots !== undefined ? { [ROOTS]: roots } : {}),
        [STATUS]: JSON.stringify(status),
      },
    },
    spec: { ...pod.spec, ...placed, volumes: [...(pod.spec.volumes ?? []), ...volumes] },
  };
}
