// handfast status: what the agent of this node serves, to whom, and who refused it.

import { z } from 'zod';
import { parseFlags } from '../flags.ts';
import { ask, operatorFlags, print, table } from './operator-flags.ts';

const schema = z.object({
  node: z.string().optional(),
  trust: z.object({ authorities: z.array(z.string()), revokedSerials: z.number(), blockedIds: z.array(z.string()) }).optional(),
  workloads: z.array(z.object({ spiffeId: z.string(), serial: z.string(), notAfter: z.string(), expiresInS: z.number() })),
  streams: z.array(
    z.object({
      spiffeId: z.string(),
      peer: z.string(),
      protocol: z.string(),
      openedAt: z.number(),
      acked: z.record(z.string(), z.string()),
      refusal: z.object({ at: z.number(), names: z.array(z.string()), reason: z.string() }).optional(),
    }),
  ),
  behind: z.array(z.object({ spiffeId: z.string(), peer: z.string(), secrets: z.array(z.string()), since: z.number() })),
  connections: z.array(z.object({ reporter: z.string(), peers: z.array(z.object({ connections: z.number() })) })),
});

export async function run(argv: readonly string[]): Promise<number> {
  const config = parseFlags(argv, operatorFlags, {
    command: 'handfast status',
    summary: 'What the agent of this node serves. Run on the node, as root.',
  });
  const status = await ask({ runDir: config['run-dir'], role: 'agent' }, { method: 'GET', path: '/status' }, schema);
  print(config.output, status, () => describe(status));
  return 0;
}

function describe({ node, trust, workloads, streams, behind, connections }: z.infer<typeof schema>): string {
  const open = connections.flatMap(({ peers }) => peers).reduce((sum, peer) => sum + peer.connections, 0);
  const refusals = streams.flatMap(({ spiffeId, peer, refusal }) =>
    refusal === undefined ? [] : [[spiffeId, peer, refusal.names.join(' '), refusal.reason]],
  );
  return [
    `node: ${node ?? 'local (on unix sockets)'}\n`,
    trust === undefined
      ? 'trust: nothing from the CA yet\n'
      : `trust: ${trust.authorities.length} roots, ${trust.revokedSerials} revoked certificates, ${trust.blockedIds.length} blocked identities\n`,
    `streams: ${streams.length}, behind the latest trust bundle: ${behind.length}; mTLS connections reported: ${open}\n`,
    table(
      ['SPIFFE ID', 'SERIAL', 'EXPIRES IN'],
      workloads.map(({ spiffeId, serial, expiresInS }) => [spiffeId, serial, `${expiresInS} s`]),
    ),
    table(
      ['BEHIND THE TRUST BUNDLE', 'PEER', 'SECRETS', 'SINCE'],
      behind.map(({ spiffeId, peer, secrets, since }) => [spiffeId, peer, secrets.join(' '), new Date(since).toISOString()]),
    ),
    table(['REFUSED (NACK) BY', 'PEER', 'SECRETS', 'REASON'], refusals),
  ].join('');
}
