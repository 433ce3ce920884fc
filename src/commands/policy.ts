// handfast policy replay: what proposed objects would have meant for every connection that was observed.

import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { HandfastError, messageOf } from '../errors.ts';
import { HelpRequested, parseFlags } from '../flags.ts';
import { print, table } from './operator-flags.ts';
import { askControl, NOBODY_TO_ASK, questionFlags, time } from './question-flags.ts';

const flags = {
  file: {
    kind: 'list',
    value: 'FILE',
    short: 'f',
    help: 'YAML or JSON of proposed objects, or a directory of such files; they stand in for those of the same name; may be repeated',
  },
  ...questionFlags,
} as const;

const schema = z.object({
  judged: z.number(),
  notJudged: z.number(),
  notJudgedBecause: z.object({ gone: z.number(), unbelieved: z.number(), requests: z.number() }),
  missing: z.number(),
  completed: z.array(z.string()),
  inbound: z.array(
    z.object({
      change: z.enum(['would refuse', 'would newly allow']),
      client: z.string(),
      clientId: z.string(),
      servers: z.array(z.string()),
      port: z.number(),
      transport: z.string(),
      connections: z.number(),
      open: z.number(),
      lastSeen: z.number(),
      code: z.string(),
      reason: z.string(),
    }),
  ),
  outbound: z.array(
    z.object({
      client: z.string(),
      destination: z.string(),
      port: z.number(),
      before: z.string(),
      after: z.string(),
      connections: z.number(),
      lastSeen: z.number(),
    }),
  ),
});
type Answer = z.infer<typeof schema>;

const EXIT = { nothingChanges: 0, wouldRefuse: 1, notEnough: 3 } as const;

const HELP = `usage: handfast policy VERB [flags]

What a change of policy would mean, before it is made. The verbs are:

  replay -f FILE [-f FILE ...] [-o json]
      judges every recorded connection again, by the objects in force and by the proposed ones, and lists where they differ

Changes nothing. handfast policy replay --help lists its flags and exit codes.
`;

export async function run(argv: readonly string[]): Promise<number> {
  const [verb = '--help', ...rest] = argv;
  if (verb === '--help' || verb === '-h') throw new HelpRequested(HELP);
  if (verb !== 'replay')
    throw new HandfastError('CONFIG_INVALID', `handfast policy ${verb}: the only verb is replay\nSee handfast policy --help`);
  const config = parseFlags(rest, flags, {
    command: 'handfast policy replay',
    summary: [
      'Judges every recorded connection again, by the objects in force and by the proposed ones, and lists where they differ. Changes nothing.',
      'Exits with 0 if nobody would be refused, 1 if somebody would, 2 for a file that is wrong, 3 if nobody would be but nothing, or not everything, that was observed could be judged, or control could not be asked.',
      'Run beside control, as root.',
    ].join('\n'),
  });
  if (config.file.length === 0) throw new HandfastError('CONFIG_INVALID', '-f FILE is needed: the proposed objects');
  const files = (await Promise.all(config.file.map(readProposed))).flat();
  const request = { method: 'POST', path: '/policy-replay', body: { files } } as const;
  const answer = await askControl(config['run-dir'], request, schema).catch((error: unknown) => {
    // What is wrong is the file, and whoever wrote it is the one who asked.
    if (error instanceof HandfastError && error.code === 'OBJECT_INVALID')
      throw new HandfastError('CONFIG_INVALID', error.message, { cause: error });
    throw error;
  });
  if (answer === undefined) return NOBODY_TO_ASK;
  print(config.output, answer, () => describe(answer));
  if (answer.inbound.some(({ change }) => change === 'would refuse')) return EXIT.wouldRefuse;
  return answer.judged === 0 || answer.notJudged > 0 || answer.missing > 0 ? EXIT.notEnough : EXIT.nothingChanges;
}

interface Proposed {
  readonly name: string;
  readonly text: string;
}

/** One file; or each of a directory, without those in its own directories: of such nobody knows whether they are meant. */
async function readProposed(name: string): Promise<Proposed[]> {
  try {
    if (!(await stat(name)).isDirectory()) return [await readOne(name)];
    const entries = (await readdir(name)).sort().filter((entry) => !entry.startsWith('.'));
    const kinds = await Promise.all(entries.map(async (entry) => ({ path: join(name, entry), of: await stat(join(name, entry)) })));
    const folder = kinds.find(({ of }) => of.isDirectory());
    if (folder !== undefined)
      throw new HandfastError('CONFIG_INVALID', `-f ${name}: has directories of its own, name each that is meant: -f ${folder.path}`);
    const files = kinds.filter(({ path, of }) => of.isFile() && /\.(ya?ml|json)$/.test(path));
    if (files.length === 0) throw new HandfastError('CONFIG_INVALID', `-f ${name}: no .yaml, .yml or .json file in it`);
    return await Promise.all(files.map(({ path }) => readOne(path)));
  } catch (cause) {
    throw cause instanceof HandfastError ? cause : new HandfastError('CONFIG_INVALID', `-f ${name}: ${messageOf(cause)}`, { cause });
  }
}

async function readOne(name: string): Promise<Proposed> {
  return { name, text: await readFile(name, 'utf8') };
}

function describe({ judged, notJudgedBecause: { gone, unbelieved, requests }, missing, completed, inbound, outbound }: Answer): string {
  const changes = inbound.length + outbound.length;
  const found = changes === 0 ? 'nothing changes' : `${changes} change`;
  return [
    judged === 0 ? 'nothing was observed that could be judged\n' : `${judged} recorded kinds of connections were judged: ${found}\n`,
    ...completed.map((key) => `ScopeConfig ${key} was judged as if its rollout had come to everybody\n`),
    table(
      ['CHANGE', 'CLIENT', 'CLIENT ID', 'SERVED BY', 'PORT', 'TRANSPORT', 'CONNECTIONS', 'OPEN NOW', 'LAST SEEN', 'CODE', 'REASON'],
      inbound.map((arrival) => [
        arrival.change,
        arrival.client,
        arrival.clientId || 'nobody',
        arrival.servers.join(' '),
        String(arrival.port),
        arrival.transport,
        String(arrival.connections),
        String(arrival.open),
        time(arrival.lastSeen),
        arrival.code,
        arrival.reason,
      ]),
    ),
    table(
      ['WOULD DIAL OTHERWISE', 'DESTINATION', 'PORT', 'NOW', 'THEN', 'CONNECTIONS', 'LAST SEEN'],
      outbound.map(({ client, destination, port, before, after, connections, lastSeen }) => [
        client,
        destination,
        String(port),
        before,
        after,
        String(connections),
        time(lastSeen),
      ]),
    ),
    gone === 0 ? '' : `${gone} were not judged: of pods that are gone, and that none of the same service account has taken the place of\n`,
    unbelieved === 0 ? '' : `${unbelieved} were not judged: not reported by the sidecar of a pod that was registered then\n`,
    requests === 0
      ? ''
      : `${requests} were not judged: it depends on what was asked, by methods, paths, headers or tokens, which connections do not tell\n`,
    missing === 0 ? '' : `${missing} connections found no room in the ledgers, and are not judged\n`,
  ]
    .filter((part) => part !== '')
    .join('\n');
}
