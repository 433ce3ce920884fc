// A pod that says it was injected before. Its word is not taken: what was put in is taken out, put in anew, and compared.

import { isDeepStrictEqual } from 'node:util';
import { parseStrictObject } from '../spiffe/strict-json.ts';
import { isAllowedImage } from './allowed-image.ts';
import { containerDifferences, isSameVolume } from './api-defaults.ts';
import { type InjectorConfig, identities } from './config.ts';
import { fromLiteral } from './literal.ts';
import { INIT_CONTAINER, MESH_LABELS, PROBERS_VARIABLE, ROOTS, SIDECAR_CONTAINER, STATUS, VOLUME_PREFIX } from './own-parts.ts';
import { allContainers, annotationsOf, type Container, labelsOf, type Pod, readPod } from './pod.ts';
import { restoreProbes } from './restore-probes.ts';
import { ownVolumes } from './volumes.ts';

/** What an injected pod was like before, and the image that it was given. */
export interface Former {
  readonly pod: Pod;
  readonly image: string;
}

const OURS = [INIT_CONTAINER, SIDECAR_CONTAINER];

/** Undefined for a pod that does not even claim it. Throws OBJECT_INVALID for probes that nobody could have asked for. */
export function formerOf(pod: Pod, config: InjectorConfig): Former | undefined {
  if (annotationsOf(pod)[STATUS] === undefined) return undefined;
  if (Object.entries(MESH_LABELS).some(([label, value]) => labelsOf(pod)[label] !== value)) return undefined;
  const ours = ownContainers(pod);
  const sidecar = ours.find(({ name }) => name === SIDECAR_CONTAINER);
  const image = sidecar?.image ?? '';
  if (ours.length !== OURS.length || sidecar === undefined || !isAllowedImage(image, config)) return undefined;
  const { initContainers, containers, volumes } = pod.spec;
  const others = (list: readonly Container[]) => list.filter(({ name }) => !OURS.includes(name));
  const names = identities.flatMap((identity) => ownVolumes(config, identity).map(({ name }) => name));
  const without = (from: Readonly<Record<string, string>>, taken: readonly string[]) =>
    Object.fromEntries(Object.entries(from).filter(([name]) => !taken.includes(name)));
  const stripped = {
    ...pod,
    metadata: {
      ...pod.metadata,
      labels: without(labelsOf(pod), Object.keys(MESH_LABELS)),
      annotations: without(annotationsOf(pod), [STATUS, ROOTS]),
    },
    spec: {
      ...pod.spec,
      containers: others(containers),
      initContainers: others(initContainers ?? []),
      volumes: (volumes ?? []).filter(({ name }) => !names.includes(name)),
    },
  };
  return { pod: readPod(restoreProbes(stripped, probersOf(sidecar))), image };
}

/** Every part of ours that is not as it is written now. What the sidecar is to ask, and where the containers stand, may be put right. */
export function differences({ written, found }: { written: Pod; found: Pod }): string[] {
  const there = ownContainers(found);
  const inContainers = ownContainers(written).flatMap((own) => {
    const other = there.find(({ name }) => name === own.name);
    if (other === undefined || there.length !== OURS.length) return [`container ${own.name}`];
    return containerDifferences({ written: own, found: other }).map((member) => `${own.name}: ${member}`);
  });
  const volumes = ownVolumesIn(written);
  const placed = ownVolumesIn(found);
  const asWritten = placed.length === volumes.length && volumes.every((own, at) => isSameVolume({ written: own, found: placed[at] ?? {} }));
  const roots = annotationsOf(found)[ROOTS] === annotationsOf(written)[ROOTS];
  return [...inContainers, ...(asWritten ? [] : ['volumes']), ...(roots ? [] : [`annotation ${ROOTS}`])];
}

/** By their prefix, which nobody else may use. */
function ownVolumesIn({ spec }: Pod): readonly { readonly name: string }[] {
  return (spec.volumes ?? []).filter(({ name }) => name.startsWith(VOLUME_PREFIX));
}

/** Whether nothing is to be put right either. */
export function isInPlace({ written, found }: { written: Pod; found: Pod }): boolean {
  const names = (pod: Pod) => allContainers(pod).map(({ container, field }) => `${field} ${container.name}`);
  const probers = (pod: Pod) => {
    const sidecar = ownContainers(pod).find(({ name }) => name === SIDECAR_CONTAINER);
    return { times: proberTexts(sidecar).length, probers: probersOf(sidecar) };
  };
  return isDeepStrictEqual(names(written), names(found)) && isDeepStrictEqual(probers(written), probers(found));
}

function ownContainers(pod: Pod): Container[] {
  return allContainers(pod).flatMap(({ container }) => (OURS.includes(container.name) ? [container] : []));
}

function proberTexts(sidecar: Container | undefined): string[] {
  return (sidecar?.env ?? []).flatMap(({ name, value }) => (name === PROBERS_VARIABLE ? [value ?? ''] : []));
}

/** None where they cannot be read: then they are not what was written, and are written anew. */
function probersOf(sidecar: Container | undefined): Readonly<Record<string, unknown>> {
  try {
    return parseStrictObject(fromLiteral(proberTexts(sidecar)[0] ?? '{}'));
  } catch {
    return {};
  }
}
