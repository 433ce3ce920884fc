// One peer, deployed: its proxies run, somebody can put load on it, and an outsider can try to get in.

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pod } from '../test/support/namespaces.ts';
import type { Credentials } from './certificates.ts';
import type { Findings } from './outsider.ts';
import type { Peer } from './peers.ts';
import { type Running, script, type Testbed } from './testbed.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface Deployment {
  readonly peer: string;
  readonly version: string;
  /** The measured processes: CPU and memory of all are summed. */
  readonly proxies: readonly Running[];
  /** Where the load runs, and what it dials there. */
  readonly client: Pod;
  readonly target: Address;
  /** Where the serving proxy takes mTLS, as seen from outside. */
  readonly guarded: Address;
}

/** Asks from `pod` whether the serving proxy lets the right client in and nobody else. Throws when even the right one does not get in. */
export async function inspect(testbed: Testbed, from: { pod: Pod; credentials: Credentials; guarded: Address }): Promise<Findings> {
  const output = await testbed.run(from.pod, script('outsider.ts', { ...from.guarded, credentials: from.credentials }), 20_000);
  return JSON.parse(output) as Findings;
}

export function startBackend(testbed: Testbed, pod: Pod): Running {
  return testbed.start(pod, script('backend.ts', {}), { name: `${pod.name}-backend`, on: 'load' });
}

/** Starts one of a peer's two proxies on the measured core. */
export async function startPeer(testbed: Testbed, of: { peer: Peer; pod: Pod; config: string }): Promise<Running> {
  const file = join(testbed.directory, `${of.pod.name}.conf`);
  await writeFile(file, of.config);
  return testbed.start(of.pod, of.peer.command(file), { name: of.pod.name, on: 'proxy' });
}
