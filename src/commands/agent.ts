// handfast agent: the node agent alone.

import { startAgent } from '../agent/agent.ts';
import { parseFlags } from '../flags.ts';
import { openLog } from '../observe/log.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { aborted } from './aborted.ts';
import { logFlags, nodeFlags, nodeOptions, rotationFlags, trustDomainFlags, workloadFlags } from './shared-flags.ts';

const flags = {
  socket: { kind: 'text', value: 'PATH', default: '/run/handfast/agent.sock', help: 'unix socket for sidecars: SDS and discovery' },
  'workload-socket': {
    kind: 'text',
    value: 'PATH',
    default: '/run/handfast/workload.sock',
    help: 'unix socket of the SPIFFE Workload API',
  },
  'operator-socket': {
    kind: 'text',
    value: 'PATH',
    default: '/run/handfast/agent-operator.sock',
    help: 'unix socket for `handfast status`, root alone',
  },
  control: {
    kind: 'text',
    value: 'ADDRESS',
    default: 'unix:/run/handfast/control.sock',
    help: 'gRPC address of control: unix:/path or host:port',
  },
  state: {
    kind: 'text',
    value: 'DIR',
    default: '/var/lib/handfast/agent',
    help: "host:port only: where the node's own key is kept (0600)",
  },
  ...trustDomainFlags,
  ...nodeFlags,
  ...workloadFlags,
  'pod-cgroups': {
    kind: 'text',
    value: 'ROOT',
    optional: true,
    help: "on a node of Kubernetes: kubelet's --cgroup-root, mostly /; a process must be in the pod that its token is bound to (needs hostPID: true)",
  },
  ...rotationFlags,
  ...logFlags,
} as const;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast agent',
    summary: "Serves certificates (SDS, SPIFFE Workload API) and the mesh's registry and policy to the workloads of this node.",
  });
  const { log, close } = openLog({ role: 'agent', level: config['log-level'] });
  try {
    const agent = await startAgent({
      socket: config.socket,
      workloadSocket: config['workload-socket'],
      operatorSocket: config['operator-socket'],
      workloadsFile: config.workloads,
      podCgroups: config['pod-cgroups'],
      control: config.control,
      rotateEveryMs: config['rotate-every'],
      trustDomain: parseTrustDomain(config['trust-domain']),
      stateDir: config.state,
      ...nodeOptions(config),
      log,
      now: Date.now,
    });
    await aborted(signal);
    await agent.stop();
    return 0;
  } finally {
    close();
  }
}
