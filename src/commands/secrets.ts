// handfast secrets: which secrets there are, who may receive them, and who has which version.

import { z } from 'zod';
import { HandfastError } from '../errors.ts';
import { parseFlags } from '../flags.ts';
import { ask, print, table } from './operator-flags.ts';
import { questionFlags, time } from './question-flags.ts';

const flags = {
  namespace: { kind: 'text', value: 'NAMESPACE', short: 'n', optional: true, help: 'of the secrets (default all)' },
  ...questionFlags,
} as const;

const holder = z.object({
  spiffeId: z.string(),
  pod: z.string(),
  node: z.string(),
  version: z.string(),
  delivered: z.number(),
  loaded: z.number(),
  confirmed: z.number(),
  dropped: z.number(),
  left: z.number(),
  holdsRevoked: z.boolean(),
});
const schema = z.object({
  secrets: z.array(
    z.object({
      secret: z.string(),
      exists: z.boolean(),
      current: z.string(),
      versions: z.array(z.string()),
      recipients: z.array(z.object({ policy: z.string(), recipients: z.array(z.string()) })),
      holders: z.array(holder),
    }),
  ),
});
type Secret = z.infer<typeof schema>['secrets'][number];
type Holder = z.infer<typeof holder>;

export async function run(argv: readonly string[]): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast secrets',
    summary: [
      'Which secrets there are, who may receive them, and which version each workload has: delivered, loaded by its application, confirmed by it.',
      'NAME is NAME or NAMESPACE/NAME, and all of them without it.',
      'Contents are shown nowhere. Run beside control, as root.',
    ].join('\n'),
    positionals: [{ name: 'name', optional: true }],
  });
  const [first = '', second, ...more] = (config.name ?? '').split('/');
  if (more.length > 0 || (second !== undefined && config.namespace !== undefined && config.namespace !== first))
    throw new HandfastError('CONFIG_INVALID', `${config.name}: accepted are NAME and NAMESPACE/NAME, and -n must agree`);
  const namespace = second === undefined ? config.namespace : first;
  const name = second ?? config.name;
  const body = { ...(namespace === undefined ? {} : { namespace }), ...(name === undefined ? {} : { name }) };
  const answer = await ask({ runDir: config['run-dir'], role: 'control' }, { method: 'POST', path: '/secrets', body }, schema);
  print(config.output, answer, () => (answer.secrets.length === 0 ? 'there are none\n' : answer.secrets.map(describe).join('\n')));
  return 0;
}

function describe({ secret, exists, current, versions, recipients, holders }: Secret): string {
  const present = holders.filter(({ dropped }) => dropped === 0);
  const revoked = present.filter(({ holdsRevoked }) => holdsRevoked);
  return [
    exists
      ? `${secret}: current ${current}, of ${versions.join(', ')}\n`
      : `${secret}: there is no such secret${holders.length > 0 ? ' any more' : ''}\n`,
    recipients.length === 0
      ? 'nobody may receive it: no SecretPolicy names it\n'
      : table(
          ['POLICY', 'MAY RECEIVE'],
          recipients.map((each) => [each.policy, each.recipients.join(', ')]),
        ),
    table(
      ['WORKLOAD', 'POD', 'NODE', 'VERSION', 'STATE', 'SINCE'],
      present.map((each) => [each.spiffeId, each.pod, each.node, each.version, ...stateOf(each)]),
    ),
    revoked.length === 0
      ? ''
      : `${revoked.length} of them still have a version that was taken back, or have not said that they have it no more\n`,
  ].join('');
}

function stateOf({ delivered, loaded, confirmed, left, holdsRevoked }: Holder): [string, string] {
  const [state, at] = confirmed > 0 ? ['confirmed', confirmed] : loaded > 0 ? ['loaded', loaded] : ['delivered', delivered];
  const marks = [holdsRevoked ? 'taken back, not confirmed' : [], left > 0 ? `not heard of since ${time(left)}` : []].flat();
  return [[String(state), ...marks].join('; '), time(Number(at))];
}
