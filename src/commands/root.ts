// handfast root: the stages of a root rotation, one after the other, and where it stands.

import { z } from 'zod';
import { HandfastError } from '../errors.ts';
import { HelpRequested, parseFlags } from '../flags.ts';
import { ask, operatorFlags, print } from './operator-flags.ts';

const verbs = {
  status: 'where the rotation stands, and which nodes are behind',
  bundle: 'print the roots (PEM): what a node that joins is given by --trust-bundle',
  prepare: 'make the next root and publish it beside the present one',
  activate: 'sign everything below the next root, once every live node has confirmed it',
  retire: 'withdraw the old root, once nothing lives below it',
  abort: 'give up a rotation that is prepared',
} as const;

const flags = {
  force: { kind: 'switch', help: 'activate though nodes are behind, retire though certificates live below the old root: those break' },
  ...operatorFlags,
} as const;

const schema = z.object({
  trustDomain: z.string(),
  rotation: z.object({ stage: z.string(), rootKeyIds: z.array(z.string()), liveBelowOld: z.number(), behind: z.array(z.string()) }),
  nodes: z.object({ connected: z.array(z.string()), live: z.array(z.string()) }),
});

const bundleSchema = z.object({ pem: z.string() });

export async function run(argv: readonly string[]): Promise<number> {
  const [verb = '--help', ...rest] = argv;
  if (verb === '--help' || verb === '-h') {
    const list = Object.entries(verbs).map(([name, help]) => `  ${name.padEnd(10)}${help}\n`);
    throw new HelpRequested(`usage: handfast root VERB [--force] [--run-dir DIR] [--output json]\n\n${list.join('')}`);
  }
  if (!(verb in verbs)) throw new HandfastError('CONFIG_INVALID', `handfast root ${verb}: the verbs are ${Object.keys(verbs).join(', ')}`);
  const config = parseFlags(rest, flags, { command: `handfast root ${verb}`, summary: 'Run beside the CA, as root.' });
  if (verb === 'bundle') {
    const bundle = await ask({ runDir: config['run-dir'], role: 'ca' }, { method: 'GET', path: '/bundle' }, bundleSchema);
    print(config.output, bundle, () => bundle.pem);
    return 0;
  }
  const force = config.force && (verb === 'activate' || verb === 'retire');
  const request =
    verb === 'status'
      ? ({ method: 'GET', path: '/status' } as const)
      : ({ method: 'POST', path: `/root/${verb}`, body: force ? { force } : {} } as const);
  const status = await ask({ runDir: config['run-dir'], role: 'ca' }, request, schema);
  print(config.output, status, () => describe(status));
  return 0;
}

function describe({ trustDomain, rotation, nodes }: z.infer<typeof schema>): string {
  const { stage, rootKeyIds, liveBelowOld, behind } = rotation;
  const known = new Set([...nodes.live, ...nodes.connected]).size;
  return [
    `${trustDomain}: ${stage}`,
    `roots published: ${rootKeyIds.map((keyId) => keyId.slice(0, 16)).join(', ')}`,
    `nodes that have confirmed the bundle: ${known - behind.length} of ${known}${behind.length > 0 ? `; behind: ${behind.join(', ')}` : ''}`,
    ...(liveBelowOld > 0 ? [`certificates below the old root: ${liveBelowOld}`] : []),
    '',
  ].join('\n');
}
