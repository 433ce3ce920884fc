// handfast strict-check: who breaks if a namespace or a workload becomes STRICT.

import { z } from 'zod';
import { HandfastError } from '../errors.ts';
import { parseFlags } from '../flags.ts';
import { print, table } from './operator-flags.ts';
import { askControl, NOBODY_TO_ASK, questionFlags, time } from './question-flags.ts';

const flags = {
  namespace: {
    kind: 'text',
    value: 'NS',
    short: 'n',
    optional: true,
    help: 'of the pods that would become STRICT; needed unless WORKLOAD says it',
  },
  'min-observed': { kind: 'duration', default: '1h', min: '0s', max: '8760h', help: 'how long each pod must have been observed' },
  since: { kind: 'duration', optional: true, min: '1s', max: '8760h', help: 'count who was seen in this time; all that is kept otherwise' },
  ...questionFlags,
} as const;

const conversation = z.object({
  client: z.string(),
  clientId: z.string(),
  servers: z.array(z.string()),
  port: z.number(),
  transport: z.string(),
  connections: z.number(),
  open: z.number(),
  firstSeen: z.number(),
  lastSeen: z.number(),
  tripwire: z.boolean(),
});

const schema = z.object({
  verdict: z.enum(['safe', 'would break', 'not enough observed']),
  takenAs: z.string(),
  pods: z.array(z.string()),
  offenders: z.array(conversation),
  exempt: z.array(z.object({ port: z.number(), mode: z.string(), source: z.string(), pods: z.array(z.string()), connections: z.number() })),
  limits: z.array(z.object({ kind: z.string(), pod: z.string(), text: z.string(), limiting: z.boolean() })),
});
type Answer = z.infer<typeof schema>;

const EXIT = { safe: 0, 'would break': 1, 'not enough observed': 3 } as const;

export async function run(argv: readonly string[]): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast strict-check',
    summary: [
      'Who breaks if a namespace, or one workload (a pod, service or service account), becomes STRICT: by what its own sidecars have seen.',
      'WORKLOAD is NAME or NS/NAME; with -n also pod/NAME, service/NAME or serviceaccount/NAME, which say what is meant.',
      'Exits with 0 if it is safe, 1 if somebody would break, 2 for a mistake in the question, 3 if not enough was observed, or control could not be asked.',
      'Run beside control, as root.',
    ].join('\n'),
    positionals: [{ name: 'workload', optional: true }],
  });
  const { since } = config;
  const { namespace, workload } = meant(config);
  const body = {
    namespace,
    minObservedMs: config['min-observed'],
    ...(workload === undefined ? {} : { workload }),
    ...(since === undefined ? {} : { sinceMs: since }),
  };
  const request = { method: 'POST', path: '/strict-check', body } as const;
  const answer = await askControl(config['run-dir'], request, schema);
  if (answer === undefined) return NOBODY_TO_ASK;
  print(config.output, answer, () => describe(answer, workload ?? namespace));
  return EXIT[answer.verdict];
}

const KINDS: ReadonlySet<string> = new Set(['pod', 'service', 'serviceaccount']);

/** A name may say its namespace itself. Throws CONFIG_INVALID for two that differ, and for none. */
function meant({ namespace, workload }: { namespace: string | undefined; workload: string | undefined }): {
  namespace: string;
  workload: string | undefined;
} {
  const [first = '', name, ...more] = workload?.split('/') ?? [];
  if (workload === undefined || name === undefined || KINDS.has(first)) {
    if (namespace === undefined) throw new HandfastError('CONFIG_INVALID', `-n NS is needed: ${flags.namespace.help}`);
    return { namespace, workload };
  }
  if (first === '' || name === '' || more.length > 0)
    throw new HandfastError('CONFIG_INVALID', `${workload}: accepted are NAME, NS/NAME, and ${[...KINDS].join('/NAME, ')}/NAME with -n NS`);
  if (namespace !== undefined && namespace !== first)
    throw new HandfastError('CONFIG_INVALID', `${workload} is not in namespace ${namespace}, which -n says`);
  return { namespace: first, workload: name };
}

function describe({ verdict, takenAs, pods, offenders, exempt, limits }: Answer, name: string): string {
  return [
    `${takenAs} ${name}, ${pods.length} pods: ${verdict}\n`,
    table(
      ['WOULD BREAK', 'REGISTERED AS', 'SERVED BY', 'PORT', 'TRANSPORT', 'CONNECTIONS', 'OPEN NOW', 'FIRST SEEN', 'LAST SEEN', ''],
      offenders.map((offender) => [
        offender.client,
        offender.clientId || 'nobody',
        offender.servers.join(' '),
        String(offender.port),
        offender.transport,
        String(offender.connections),
        String(offender.open),
        time(offender.firstSeen),
        time(offender.lastSeen),
        offender.tripwire ? 'has spoken mTLS before' : '',
      ]),
    ),
    table(
      ['PORT STAYS', 'AS IT IS BY', 'PODS', 'CONNECTIONS WITHOUT MTLS'],
      exempt.map(({ port, mode, source, pods: of, connections }) => [`${port} ${mode}`, source, of.join(' '), String(connections)]),
    ),
    table(
      ['WHAT LIMITS THIS', 'POD', 'WHY'],
      limits.map(({ kind, pod, text, limiting }) => [limiting ? kind : `${kind} (noted)`, pod, text]),
    ),
  ]
    .filter((part) => part !== '')
    .join('\n');
}
