// handfast join-token create: lets one node into the mesh, once.

import { z } from 'zod';
import { HandfastError } from '../errors.ts';
import { HelpRequested, parseFlags } from '../flags.ts';
import { ask, operatorFlags, print } from './operator-flags.ts';

const flags = {
  node: { kind: 'text', value: 'NAME', optional: true, help: "the agent's node, as ledger and status will name it" },
  role: { kind: 'choice', choices: ['agent', 'control'], default: 'agent', help: 'what may join with it' },
  ttl: { kind: 'duration', default: '1h', min: '10s', max: '168h', help: 'until when it can be used' },
  ...operatorFlags,
} as const;

const usage = {
  command: 'handfast join-token create',
  summary: 'Prints a token that lets one node join, once: give it to `handfast agent --join-token-file` there. Run beside the CA, as root.',
};
const schema = z.object({ token: z.string(), expiresAt: z.number() });

export async function run(argv: readonly string[]): Promise<number> {
  const [verb, ...rest] = argv;
  if (verb === '--help' || verb === '-h') throw new HelpRequested('usage: handfast join-token create --node NAME [--ttl 1h]\n');
  if (verb !== 'create')
    throw new HandfastError(
      'CONFIG_INVALID',
      `handfast join-token ${verb ?? ''}: the only verb is "create"; see handfast join-token create --help`,
    );
  const config = parseFlags(rest, flags, usage);
  if (config.role === 'agent' && config.node === undefined) throw new HandfastError('CONFIG_INVALID', '--node NAME is needed for an agent');
  const body = { role: config.role, ttlMs: config.ttl, ...(config.node === undefined ? {} : { node: config.node }) };
  const made = await ask({ runDir: config['run-dir'], role: 'ca' }, { method: 'POST', path: '/join-tokens', body }, schema);
  print(config.output, { ...made, expiresAt: new Date(made.expiresAt).toISOString() }, () => `${made.token}\n`);
  return 0;
}
