// handfast control: registry and policy from a directory or a Kubernetes API server, for agents.

import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { type ObjectsFrom, startControl } from '../control/control.ts';
import type { SharedState } from '../control/leadership.ts';
import type { SecretsFrom } from '../control/secrets/start-secrets.ts';
import { HandfastError } from '../errors.ts';
import { type FlagValues, parseFlags } from '../flags.ts';
import { openLog } from '../observe/log.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { aborted } from './aborted.ts';
import { kubeApiOf, kubeFlags } from './kube-flags.ts';
import {
  configFlags,
  listenFlags,
  logFlags,
  nodeFlags,
  nodeOptions,
  parseListen,
  secretFlags,
  secretsOf,
  trustDomainFlags,
} from './shared-flags.ts';

const flags = {
  config: { ...configFlags.config, optional: true },
  kubernetes: { kind: 'switch', help: 'registry and policy from the Kubernetes API server instead of --config' },
  ...kubeFlags,
  lease: {
    kind: 'text',
    value: 'NAMESPACE/NAME',
    optional: true,
    help: '--kubernetes only: one of several controls, of which this Lease says who leads; ledger and rollouts are kept beside it in the API server, not in --state',
  },
  ...secretFlags,
  secrets: {
    kind: 'switch',
    help: '--kubernetes only: WorkloadSecrets and SecretPolicies from the API server, for the workloads that are entitled to them',
  },
  ...trustDomainFlags,
  socket: { kind: 'text', value: 'PATH', default: '/run/handfast/control.sock', help: 'unix socket for the agent of this machine' },
  'operator-socket': {
    kind: 'text',
    value: 'PATH',
    default: '/run/handfast/control-operator.sock',
    help: 'unix socket for operators, root alone',
  },
  ...listenFlags,
  metrics: {
    kind: 'text',
    value: 'HOST:PORT',
    optional: true,
    help: 'HTTP /metrics for Prometheus, which names nobody, such as 0.0.0.0:15014',
  },
  'serve-sidecars': { kind: 'switch', help: '--listen only: serve sidecars that have no agent, too (handfast proxy --ca)' },
  ...nodeFlags,
  state: {
    kind: 'text',
    value: 'DIR',
    default: '/var/lib/handfast/control',
    help: "the mesh's ledger and the states of rollouts; with --listen control's own key too (0600)",
  },
  ...logFlags,
} as const;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast control',
    summary: 'Resolves registry and policy, and serves them to agents.',
  });
  const { log, close } = openLog({ role: 'control', level: config['log-level'] });
  const now = Date.now;
  const trustDomain = parseTrustDomain(config['trust-domain']);
  try {
    const node = { ...nodeOptions(config), trustDomain, stateDir: config.state, log, now };
    const objects = objectsFrom(config);
    const control = await startControl({
      objects,
      secrets: secretsOf(config, secretsFrom(config, objects)),
      shared: config.lease === undefined ? undefined : sharedState(config.lease, objects),
      metrics: config.metrics === undefined ? undefined : parseListen(config.metrics, 'metrics'),
      servesSidecars: config['serve-sidecars'],
      signal,
      socket: config.socket,
      operatorSocket: config['operator-socket'],
      trustDomain,
      stateDir: config.state,
      ...(config.listen === undefined ? {} : { listen: { ...parseListen(config.listen), node } }),
      log,
      now,
    });
    await aborted(signal);
    await control.stop();
    return 0;
  } finally {
    close();
  }
}

function objectsFrom(config: FlagValues<typeof flags>): ObjectsFrom {
  if (config.kubernetes === (config.config !== undefined))
    throw new HandfastError('CONFIG_INVALID', 'registry and policy come from --config DIR or from --kubernetes: give one of them');
  return config.config === undefined ? { kube: kubeApiOf(config, process.env) } : { directory: config.config };
}

function secretsFrom(config: FlagValues<typeof flags>, objects: ObjectsFrom): SecretsFrom | undefined {
  const { secrets, 'secrets-dir': folder } = config;
  if (secrets && !('kube' in objects))
    throw new HandfastError('CONFIG_INVALID', '--secrets are those of the API server: give --kubernetes too, or --secrets-dir DIR');
  if (folder !== undefined && 'kube' in objects)
    throw new HandfastError(
      'CONFIG_INVALID',
      '--secrets-dir is for --config: with --kubernetes secrets come from the API server (--secrets)',
    );
  if ('kube' in objects) return secrets ? { kube: objects.kube } : undefined;
  return folder === undefined ? undefined : { folder };
}

function sharedState(lease: string, objects: ObjectsFrom): SharedState {
  const [, namespace, name] = /^([a-z0-9-]+)\/([a-z0-9.-]+)$/.exec(lease) ?? [];
  if (namespace === undefined || name === undefined)
    throw new HandfastError('CONFIG_INVALID', `--lease ${JSON.stringify(lease)} is not accepted: NAMESPACE/NAME`);
  if (!('kube' in objects))
    throw new HandfastError('CONFIG_INVALID', '--lease is for controls that follow one Kubernetes API server: give --kubernetes too');
  return { api: objects.kube, namespace, lease: name, identity: `${hostname()}_${randomUUID()}` };
}
