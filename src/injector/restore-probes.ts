// The way back from rewritten probes: what the application's containers were asked before, from what the sidecar is told to ask.

import { isJsonObject } from '../spiffe/strict-json.ts';
import { STATUS_PORT } from './own-parts.ts';
import type { Container, Handler, Pod } from './pod.ts';
import { HOOKS, hookPath, PROBES, probePath, REWRITTEN } from './probes.ts';

type Json = Readonly<Record<string, unknown>>;

/** Unchecked: `probers` may be anybody's, and whoever takes the pod reads it as he would any other. */
export function restoreProbes({ spec, ...pod }: Pod, probers: Json): unknown {
  const restore = (container: Container) => restoreContainer(container, probers);
  return {
    ...pod,
    spec: {
      ...spec,
      containers: spec.containers.map(restore),
      ...(spec.initContainers === undefined ? {} : { initContainers: spec.initContainers?.map(restore) ?? null }),
    },
  };
}

function restoreContainer(container: Container, probers: Json): unknown {
  const probes = PROBES.flatMap(([field, name]) => {
    const probe = container[field] ?? undefined;
    return probe === undefined ? [] : [[field, restored(probe, { path: probePath(container.name, name), probers })] as const];
  });
  const hooks = HOOKS.flatMap(([field, name]) => {
    const hook = container.lifecycle?.[field] ?? undefined;
    return hook === undefined ? [] : [[field, restored(hook, { path: hookPath(container.name, name), probers })] as const];
  });
  const lifecycle = hooks.length === 0 ? {} : { lifecycle: { ...container.lifecycle, ...Object.fromEntries(hooks) } };
  return { ...container, ...Object.fromEntries(probes), ...lifecycle };
}

function restored(handler: Handler, { path, probers }: { path: string; probers: Json }): unknown {
  const prober = Object.hasOwn(probers, path) ? probers[path] : undefined;
  if (handler.httpGet?.path !== path || handler.httpGet.port !== STATUS_PORT || !isJsonObject(prober)) return handler;
  const pick = (of: object, wanted: boolean) => Object.entries(of).filter(([name]) => REWRITTEN.includes(name) === wanted);
  return Object.fromEntries([...pick(handler, false), ...pick(prober, true)]);
}
