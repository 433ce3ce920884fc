// handfast explain: why a pod is under the policies that it is under.

import { z } from 'zod';
import { HandfastError } from '../errors.ts';
import { parseFlags } from '../flags.ts';
import { ask, print, table } from './operator-flags.ts';
import { questionFlags } from './question-flags.ts';

const flags = {
  namespace: {
    kind: 'text',
    value: 'NAMESPACE',
    short: 'n',
    optional: true,
    help: "the pod's namespace, if POD does not say it (default default)",
  },
  ...questionFlags,
} as const;

const schema = z.object({
  pod: z.string(),
  identity: z.string(),
  meshed: z.boolean(),
  inForce: z.boolean(),
  inbound: z.array(
    z.object({
      port: z.number().optional(),
      mode: z.string(),
      source: z.string(),
      dryRunMode: z.string().optional(),
      dryRunSource: z.string().optional(),
      candidates: z.array(z.object({ scope: z.string(), source: z.string(), mode: z.string(), outcome: z.string() })),
    }),
  ),
  httpPorts: z.array(z.number()),
  tokens: z.array(z.object({ source: z.string(), issuers: z.array(z.string()), holds: z.boolean(), outcome: z.string() })),
  authorizations: z.array(
    z.object({ source: z.string(), action: z.string(), scope: z.string(), dryRun: z.boolean(), holds: z.boolean(), outcome: z.string() }),
  ),
  clientTls: z.object({
    rules: z.array(
      z.object({
        host: z.string(),
        source: z.string(),
        tls: z.string(),
        ports: z.record(z.string(), z.string()),
        outcome: z.string(),
      }),
    ),
    services: z.array(z.object({ service: z.string(), tls: z.string(), source: z.string() })),
  }),
});

export async function run(argv: readonly string[]): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast explain',
    summary: [
      'Why a pod has the mTLS modes, authorization policies and client TLS that it has. POD is NAME or NAMESPACE/NAME.',
      'Run beside control, as root.',
    ].join('\n'),
    positionals: [{ name: 'pod' }],
  });
  const request = { method: 'POST', path: '/explain', body: { pod: podNamed(config.pod, config.namespace) } } as const;
  const answer = await ask({ runDir: config['run-dir'], role: 'control' }, request, schema);
  print(config.output, answer, () => describe(answer));
  return 0;
}

/** `namespace/name`, of a name that may say its namespace itself. Throws CONFIG_INVALID for two that differ. */
function podNamed(pod: string, namespace: string | undefined): string {
  const [first = '', name, ...more] = pod.split('/');
  if (name === undefined) return `${namespace ?? 'default'}/${pod}`;
  if (first === '' || name === '' || more.length > 0)
    throw new HandfastError('CONFIG_INVALID', `${pod}: accepted are NAME and NAMESPACE/NAME`);
  if (namespace !== undefined && namespace !== first)
    throw new HandfastError('CONFIG_INVALID', `${pod} is not in namespace ${namespace}, which -n says`);
  return pod;
}

function describe({
  pod,
  identity,
  meshed,
  inForce,
  inbound,
  httpPorts,
  tokens,
  authorizations,
  clientTls,
}: z.infer<typeof schema>): string {
  return [
    `pod: ${pod}, ${identity}${meshed ? '' : ' (no sidecar speaks mTLS there)'}\n`,
    inForce ? '' : 'its switches are being turned in stages: it still takes what it took before\n',
    ...inbound.map(describeInbound),
    httpPorts.length === 0
      ? '\nno port is declared HTTP: connections are judged, not requests\n'
      : `\nrequests are read on port ${httpPorts.join(', ')}\n`,
    table(
      ['TOKENS BY', 'ISSUERS', 'OUTCOME'],
      tokens.map(({ source, issuers, outcome }) => [source, issuers.join(' '), outcome]),
    ),
    '\nauthorization\n',
    table(
      ['POLICY', 'ACTION', 'OUTCOME'],
      authorizations.map(({ source, action, outcome }) => [source, action, outcome]),
    ) || 'no AuthorizationPolicy is in reach: everybody is allowed\n',
    '\nas a client\n',
    table(
      ['HOST', 'RULE', 'TLS', 'PORTS', 'OUTCOME'],
      clientTls.rules.map(({ host, source, tls, ports, outcome }) => [host, source, tls, describePorts(ports), outcome]),
    ),
    table(
      ['SERVICE', 'TLS', 'SET BY'],
      clientTls.services.map(({ service, tls, source }) => [service, tls, source]),
    ),
    clientTls.rules.length + clientTls.services.length === 0 ? 'no rule: mTLS to whoever speaks it\n' : '',
  ].join('');
}

function describeInbound({ port, mode, source, dryRunMode, dryRunSource, candidates }: z.infer<typeof schema>['inbound'][number]): string {
  const shadow = dryRunMode === undefined ? '' : `; in dry-run: ${dryRunMode} by ${dryRunSource}`;
  return [
    `\n${port === undefined ? 'inbound' : `inbound port ${port}`}: ${mode} by ${source}${shadow}\n`,
    table(
      ['SCOPE', 'OBJECT', 'MODE', 'OUTCOME'],
      candidates.map((candidate) => [candidate.scope, candidate.source, candidate.mode, candidate.outcome]),
    ),
  ].join('');
}

function describePorts(ports: Readonly<Record<string, string>>): string {
  return Object.entries(ports)
    .map(([port, tls]) => `${port}:${tls}`)
    .join(' ');
}
