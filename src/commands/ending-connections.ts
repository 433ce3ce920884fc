// What a revocation would end, of the open connections that sidecars report; and of which nodes that is not known, or not wholly.

import { z } from 'zod';
import { ask } from './operator-flags.ts';

const peerSchema = z.object({
  reporter: z.string(),
  pod: z.string(),
  spiffeId: z.string(),
  serial: z.string(),
  direction: z.string(),
  connections: z.number(),
});
const states = ['complete', 'truncated', 'missing'] as const;
const schema = z.object({ reports: z.array(z.object({ node: z.string(), state: z.enum(states), peers: z.array(peerSchema) })) });

export interface Ending {
  readonly connections: readonly (z.infer<typeof peerSchema> & { readonly node: string })[];
  /** The nodes whose reports do not tell it all. */
  readonly incomplete: readonly { readonly node: string; readonly state: 'truncated' | 'missing' }[];
}

interface Effect {
  readonly serials: readonly string[];
  readonly blockedIds: readonly string[];
  readonly certificates: readonly { readonly node: string }[];
}

/** Asks control. Throws UNAVAILABLE. */
export async function endingConnections(runDir: string, effect: Effect): Promise<Ending> {
  const { reports } = await ask({ runDir, role: 'control' }, { method: 'GET', path: '/connections' }, schema);
  const serials = new Set(effect.serials);
  const ids = new Set(effect.blockedIds);
  const connections = reports.flatMap(({ node, peers }) =>
    peers.filter((peer) => serials.has(peer.serial) || ids.has(peer.spiffeId)).map((peer) => ({ node, ...peer })),
  );
  const incomplete = new Map<string, 'truncated' | 'missing'>();
  for (const { node, state } of reports) if (state !== 'complete') incomplete.set(node, state);
  const known = new Set(reports.map(({ node }) => node));
  // Where the certificates are, control knows of no agent.
  for (const { node } of effect.certificates) if (!known.has(node)) incomplete.set(node, 'missing');
  return { connections, incomplete: [...incomplete].map(([node, state]) => ({ node, state })) };
}
