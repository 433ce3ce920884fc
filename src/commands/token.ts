// handfast token create: a signed token for a workload of this machine.

import { createLocalToken, DEFAULT_AUDIENCE, readLocalTokenKey } from '../ca/local-token.ts';
import { HandfastError } from '../errors.ts';
import { HelpRequested, parseFlags } from '../flags.ts';
import { caFlags } from './shared-flags.ts';

const flags = {
  namespace: { kind: 'text', value: 'NAME', help: "the workload's namespace" },
  'service-account': { kind: 'text', value: 'NAME', help: 'the service account it runs as' },
  audience: {
    kind: 'text',
    value: 'AUDIENCE',
    default: DEFAULT_AUDIENCE,
    help: 'whom the token is for; the CA accepts its own --audience alone',
  },
  ttl: { kind: 'duration', default: '1h', min: '10s', max: '8760h', help: 'how long the token can be used' },
  state: caFlags.state,
} as const;

const usage = {
  command: 'handfast token create',
  summary: "Prints a JWT that proves its holder to be the workload. Needs to read the CA's state directory.",
};

export async function run(argv: readonly string[]): Promise<number> {
  const [verb, ...rest] = argv;
  if (verb === '--help' || verb === '-h')
    throw new HelpRequested('usage: handfast token create --namespace NAME --service-account NAME [--audience A] [--ttl 1h]\n');
  if (verb !== 'create')
    throw new HandfastError('CONFIG_INVALID', `handfast token ${verb ?? ''}: the only verb is "create"; see handfast token create --help`);
  const config = parseFlags(rest, flags, usage);
  const key = await readLocalTokenKey(config.state);
  const token = createLocalToken({
    namespace: config.namespace,
    serviceAccount: config['service-account'],
    audience: config.audience,
    ttlS: Math.floor(config.ttl / 1000),
    key,
    now: Date.now(),
  });
  process.stdout.write(`${token}\n`);
  return 0;
}
