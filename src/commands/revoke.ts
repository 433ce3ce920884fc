// handfast revoke: by serial, by key or by SPIFFE ID; --dry-run first says what would end.

import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import { HandfastError, messageOf } from '../errors.ts';
import { parseFlags } from '../flags.ts';
import { type Ending, endingConnections } from './ending-connections.ts';
import { ask, operatorFlags, print, table } from './operator-flags.ts';

const flags = {
  'spiffe-id': { kind: 'text', value: 'ID', optional: true, help: 'everything issued to it, and nothing more is issued until --lift' },
  serial: { kind: 'text', value: 'HEX', optional: true, help: 'one certificate' },
  key: {
    kind: 'text',
    value: 'HEX|FILE',
    optional: true,
    help: "every certificate of a key: its SPKI's SHA-256, or a PEM file with the key or a certificate",
  },
  'jwt-key': { kind: 'text', value: 'KID', optional: true, help: 'a key of JWT-SVIDs: its tokens verify nowhere any more' },
  reason: { kind: 'text', value: 'REASON', default: 'unspecified', help: 'RFC 5280: keyCompromise, cessationOfOperation, superseded, ...' },
  text: { kind: 'text', value: 'TEXT', optional: true, help: 'for whoever reads the list' },
  'expires-in': {
    kind: 'duration',
    optional: true,
    min: '1m',
    max: '96000h',
    help: 'with --serial: revoke also what the ledger does not know, for this long',
  },
  'dry-run': { kind: 'switch', help: 'say what would be revoked and which open connections would end, and do nothing' },
  lift: { kind: 'switch', help: 'let a SPIFFE ID or key have certificates again; what was revoked stays revoked' },
  ...operatorFlags,
} as const;

const effectSchema = z.object({
  serials: z.array(z.string()),
  blockedIds: z.array(z.string()),
  blockedKeyIds: z.array(z.string()),
  certificates: z.array(z.object({ serial: z.string(), spiffeId: z.string(), node: z.string(), notAfter: z.number() })),
});

export async function run(argv: readonly string[]): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast revoke',
    summary: 'Ends certificates before their time: every sidecar refuses them and cuts their connections. Run beside the CA, as root.',
  });
  if (config['jwt-key'] !== undefined) {
    const request = { method: 'POST', path: '/jwt-keys/withdraw', body: { kid: config['jwt-key'] } } as const;
    const answer = await ask({ runDir: config['run-dir'], role: 'ca' }, request, z.object({}));
    print(config.output, answer, () => 'withdrawn\n');
    return 0;
  }
  const target = {
    ...(config['spiffe-id'] === undefined ? {} : { spiffeId: config['spiffe-id'] }),
    ...(config.serial === undefined ? {} : { serial: config.serial }),
    ...(config.key === undefined ? {} : { key: await readKey(config.key) }),
  };
  if (Object.keys(target).length !== 1) throw new HandfastError('CONFIG_INVALID', 'give one of --spiffe-id, --serial, --key and --jwt-key');
  const runDir = config['run-dir'];
  if (config.lift) {
    const answer = await ask(
      { runDir, role: 'ca' },
      { method: 'POST', path: '/revocations/lift', body: target },
      z.object({ lifted: z.boolean() }),
    );
    print(config.output, answer, () => (answer.lifted ? 'lifted\n' : 'it was not blocked\n'));
    return 0;
  }
  const body = {
    ...target,
    ...(config['dry-run'] ? { dryRun: true } : { reason: config.reason }),
    ...(config.text === undefined || config['dry-run'] ? {} : { text: config.text }),
    ...(config['expires-in'] === undefined ? {} : { expiresAt: Date.now() + config['expires-in'] }),
  };
  const effect = await ask({ runDir, role: 'ca' }, { method: 'POST', path: '/revocations', body }, effectSchema);
  const ending = config['dry-run'] ? await endingConnections(runDir, effect) : undefined;
  print(config.output, { ...effect, ...(ending === undefined ? {} : ending) }, () => describe(effect, ending));
  return 0;
}

function describe(effect: z.infer<typeof effectSchema>, ending: Ending | undefined): string {
  const will = ending === undefined ? '' : 'would be ';
  const lines = [
    `${effect.serials.length} certificates ${will}revoked`,
    ...effect.blockedIds.map((id) => `${id} ${will}blocked`),
    ...effect.blockedKeyIds.map((id) => `key ${id} ${will}blocked`),
  ];
  const certificates = table(
    ['SERIAL', 'SPIFFE ID', 'NODE', 'EXPIRES'],
    effect.certificates.map(({ serial, spiffeId, node, notAfter }) => [serial, spiffeId, node, new Date(notAfter).toISOString()]),
  );
  if (ending === undefined) return `${lines.join('\n')}\n${certificates}`;
  const total = ending.connections.reduce((sum, { connections }) => sum + connections, 0);
  const connections = table(
    ['NODE', 'REPORTED BY', 'POD', 'DIRECTION', 'PEER', 'CONNECTIONS'],
    ending.connections.map((peer) => [peer.node, peer.reporter, peer.pod, peer.direction, peer.spiffeId, String(peer.connections)]),
  );
  const unknown = ending.incomplete.map(({ node, state }) =>
    state === 'missing'
      ? `node ${node} has sent no report: what would end there is not known\n`
      : `node ${node} has more connections than its report holds: more may end there\n`,
  );
  return `${lines.join('\n')}\n${certificates}${total} open connections would end\n${connections}${unknown.join('')}`;
}

/** Hex as it is; anything else names a file. */
async function readKey(value: string): Promise<string> {
  if (/^[0-9a-f]{64}$/i.test(value)) return value;
  return readFile(value, 'utf8').catch((cause) => {
    throw new HandfastError('CONFIG_INVALID', `--key: neither 64 hexadecimal digits nor a readable file: ${messageOf(cause)}`, { cause });
  });
}
