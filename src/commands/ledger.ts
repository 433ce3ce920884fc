// handfast ledger: who spoke to whom, and how; what an operator should look at first.

import { z } from 'zod';
import { parseFlags } from '../flags.ts';
import { ask, print, table } from './operator-flags.ts';
import { questionFlags, time } from './question-flags.ts';

const flags = {
  namespace: {
    kind: 'text',
    value: 'NS',
    short: 'n',
    optional: true,
    help: 'of the pods whose sidecars observed it; all of them otherwise',
  },
  ...questionFlags,
} as const;

const entry = z.object({
  direction: z.string(),
  peerAddress: z.string(),
  peerId: z.string(),
  peerWorkload: z.string(),
  peerRegisteredId: z.string(),
  ownAddress: z.string(),
  port: z.number(),
  service: z.string(),
  transport: z.string(),
  outcome: z.string(),
  code: z.string(),
  shadowCode: z.string(),
  connections: z.number(),
  open: z.number(),
  firstSeen: z.number(),
  lastSeen: z.number(),
  tripwire: z.boolean(),
});
const schema = z.object({
  instances: z.array(
    z.object({
      node: z.string(),
      pod: z.string(),
      reporter: z.string(),
      instance: z.string(),
      observedSince: z.number(),
      heard: z.number(),
      live: z.boolean(),
      believed: z.boolean().nullable(),
      dropped: z.number(),
      forgotten: z.number(),
      entries: z.array(entry),
    }),
  ),
});
type Instance = z.infer<typeof schema>['instances'][number];
type Line = { readonly pod: string } & z.infer<typeof entry>;

export async function run(argv: readonly string[]): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast ledger',
    summary: 'Who spoke to whom, how, and when first and last, by what the sidecars have seen. Run beside control, as root.',
  });
  const all = await ask({ runDir: config['run-dir'], role: 'control' }, { method: 'GET', path: '/ledger' }, schema);
  const instances = all.instances.filter(({ pod }) => config.namespace === undefined || pod.startsWith(`${config.namespace}/`));
  const lines = instances.flatMap(({ pod, entries }) => entries.map((of): Line => ({ pod, ...of })));
  const events = lines.filter(({ tripwire }) => tripwire);
  print(config.output, { events, instances }, () => describe({ events, lines, instances }));
  return 0;
}

function describe({
  events,
  lines,
  instances,
}: {
  events: readonly Line[];
  lines: readonly Line[];
  instances: readonly Instance[];
}): string {
  return [
    table(
      ['TRIPWIRE', 'ADDRESS', 'REGISTERED AS', 'SPOKE PLAINTEXT TO', 'PORT', 'OUTCOME', 'LAST SEEN'],
      newestFirst(events).map((of) => [
        of.peerWorkload,
        of.peerAddress,
        of.peerRegisteredId,
        of.pod,
        String(of.port),
        of.outcome,
        time(of.lastSeen),
      ]),
    ),
    table(
      ['POD', '', 'PEER', 'PROVEN', 'PORT', 'TRANSPORT', 'OUTCOME', 'IN DRY-RUN', 'CONNECTIONS', 'OPEN', 'FIRST SEEN', 'LAST SEEN'],
      newestFirst(lines).map((of) => [
        of.pod,
        of.direction === 'inbound' ? 'from' : 'to',
        of.service || of.peerWorkload || of.peerAddress,
        of.peerId,
        String(of.port),
        of.transport,
        `${of.outcome} ${of.code}`.trimEnd(),
        of.shadowCode,
        String(of.connections),
        String(of.open),
        time(of.firstSeen),
        time(of.lastSeen),
      ]),
    ),
    table(
      ['NOT BELIEVED: POD', 'REPORTED BY', 'NODE', 'HEARD'],
      instances.filter(({ believed }) => believed === false).map(({ pod, reporter, node, heard }) => [pod, reporter, node, time(heard)]),
    ),
    table(
      ['INCOMPLETE: POD', 'WITHOUT MTLS AND NOT KEPT', 'OTHERS NOT KEPT'],
      instances
        .filter(({ dropped, forgotten }) => dropped + forgotten > 0)
        .map(({ pod, dropped, forgotten }) => [pod, String(dropped), String(forgotten)]),
    ),
    instances.length === 0 ? 'no sidecar has reported anything\n' : '',
  ]
    .filter((part) => part !== '')
    .join('\n');
}

function newestFirst(lines: readonly Line[]): Line[] {
  return [...lines].sort((a, b) => b.lastSeen - a.lastSeen);
}
