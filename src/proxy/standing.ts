// Where this pod stands: what holds for it, and what is missing before it can serve.

import { messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import { type PipelineContext, selfIn, usableIdentity } from './context.ts';

/** Whether what decides on connections that came in is another now, and whether the pod's own policy is. */
export function changesForPod(
  next: MeshSnapshot,
  previous: MeshSnapshot | undefined,
  { settings }: Pick<PipelineContext, 'settings'>,
): { changed: boolean; policyChanged: boolean } {
  const own = (mesh: MeshSnapshot) => {
    const self = mesh.registry.workloadOf(settings.workloadUid);
    return { self, policy: self === undefined ? undefined : mesh.policies.get(self.uid) };
  };
  if (previous === undefined) return { changed: true, policyChanged: true };
  const [is, was] = [own(next), own(previous)];
  const policyChanged = is.self !== was.self || is.policy !== was.policy || is.policy === undefined;
  return { changed: policyChanged || next.authorizations !== previous.authorizations, policyChanged };
}

/** What holds for this pod from now on. */
export function logPolicy(mesh: MeshSnapshot, context: PipelineContext, log: Log): void {
  try {
    const { policy } = selfIn(mesh, context);
    const ports = Object.fromEntries([...policy.inboundPorts].map(([port, { mode }]) => [port, mode]));
    log.info({ mode: policy.inbound.mode, modeSource: policy.inbound.source, ports, outbound: policy.outbound }, 'policy in force');
  } catch (error) {
    log.error({ reason: messageOf(error) }, 'policy refuses every connection');
  }
}

/** Why new connections cannot be served now. */
export function missing(context: PipelineContext, state: { draining: boolean }): string[] {
  if (state.draining) return ['draining'];
  const reasons: string[] = [];
  const unless = (check: () => unknown) => {
    try {
      check();
    } catch (error) {
      reasons.push(messageOf(error));
    }
  };
  unless(() => usableIdentity(context));
  if (context.mesh.current === undefined) reasons.push('no policy has arrived from the agent yet');
  else unless(() => context.mesh.current !== undefined && selfIn(context.mesh.current, context));
  return reasons;
}
