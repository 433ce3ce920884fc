// The node agent's code beside its one sidecar, for pods that have nothing of their node: keys are made in the sidecar's own process, and stay there.

import { startAgent } from '../agent/agent.ts';
import { HandfastError } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { ProxyConfig } from '../proxy/config.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { type GrpcTarget, isUnixAddress } from '../wire/grpc-target.ts';

export interface InPodAgent {
  /** Whom the sidecar follows: control itself, as the workload that it is. */
  readonly discovery: () => GrpcTarget;
  stop(): Promise<void>;
}

/** It listens at --agent, for this process alone. Throws CONFIG_INVALID. */
export async function startInPodAgent(
  { ca, control, agent, state, ...config }: ProxyConfig,
  { log, now }: { log: Log; now: () => number },
): Promise<InPodAgent> {
  if (ca === undefined || control === undefined) throw new HandfastError('CONFIG_INVALID', 'an agent in the pod needs --ca and --control');
  if (!isUnixAddress(agent)) throw new HandfastError('CONFIG_INVALID', `--agent ${agent}: with --ca it is a unix socket of our own`);
  const running = await startAgent({
    socket: agent.slice('unix:'.length),
    workloadSocket: undefined,
    operatorSocket: undefined,
    workloadsFile: undefined,
    controls: control.split(','),
    inPod: { tokenFile: config['token-file'] },
    rotateEveryMs: undefined,
    trustDomain: parseTrustDomain(config['trust-domain']),
    ca,
    caKind: 'handfast',
    caServerName: undefined,
    trustBundleFile: config['trust-bundle'],
    stateDir: state,
    joinTokenFile: undefined,
    log: log.child({ part: 'agent' }),
    now,
  });
  return { discovery: running.control, stop: () => running.stop() };
}
