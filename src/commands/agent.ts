// handfast agent: the node agent alone.

import { type AgentOptions, startAgent } from '../agent/agent.ts';
import { HandfastError } from '../errors.ts';
import { type FlagValues, parseFlags } from '../flags.ts';
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
  'identity-socket': {
    kind: 'text',
    value: 'PATH',
    optional: true,
    help: '--workloads only: unix socket of the identity API over HTTP, for programs without a sidecar (docs/identity.md)',
  },
  'operator-socket': {
    kind: 'text',
    value: 'PATH',
    default: '/run/handfast/agent-operator.sock',
    help: 'unix socket for `handfast status`, root alone',
  },
  control: {
    kind: 'text',
    value: 'ADDRESS[,ADDRESS]',
    default: 'unix:/run/handfast/control.sock',
    help: 'gRPC address of control: unix:/path or host:port; of all its replicas, comma-separated, where there are several',
  },
  'control-kind': {
    kind: 'choice',
    choices: ['handfast', 'istio'],
    default: 'handfast',
    help: "istio: istiod in control's place, as its ambient mode serves ztunnel",
  },
  'control-token-file': {
    kind: 'text',
    value: 'FILE',
    optional: true,
    help: "--control-kind istio: a token of our service account for istiod's audience, read again when it is renewed",
  },
  'control-server-name': {
    kind: 'text',
    value: 'DNS-NAME',
    optional: true,
    help: "--control-kind istio: the name in istiod's certificate (default: the host of --control)",
  },
  'cluster-id': {
    kind: 'text',
    value: 'NAME',
    default: 'Kubernetes',
    help: '--control-kind istio: what istiod calls the cluster that our pods are in (its CLUSTER_ID)',
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
      identitySocket: config['identity-socket'],
      operatorSocket: config['operator-socket'],
      workloadsFile: config.workloads,
      podCgroups: config['pod-cgroups'],
      controls: config.control.split(','),
      istiod: istiodOf(config),
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

function istiodOf(config: FlagValues<typeof flags>): AgentOptions['istiod'] {
  const { 'control-kind': kind, 'control-token-file': tokenFile, 'control-server-name': serverName } = config;
  if (kind === 'istio' && tokenFile !== undefined) return { tokenFile, serverName, clusterId: config['cluster-id'] };
  if (kind === 'istio')
    throw new HandfastError('CONFIG_INVALID', '--control-kind istio needs --control-token-file: istiod serves nobody without a token');
  if (tokenFile !== undefined || serverName !== undefined)
    throw new HandfastError('CONFIG_INVALID', '--control-token-file and --control-server-name are for --control-kind istio alone');
  return undefined;
}
