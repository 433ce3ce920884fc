// A process that issues certificates until it is killed, and prints each serial once the certificate is in its hands.

import { Authority } from '../../src/ca/authority.ts';
import { workloadSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { keyPair } from './pki.ts';

const [dir = '', burst = '1'] = process.argv.slice(2);
const authority = await Authority.open({
  dir,
  trustDomain: 'cluster.local',
  svidTtlMs: 3_600_000,
  now: Date.now,
  maintainEveryMs: 0,
  limit: { burst: 1_000_000 },
});
const id = workloadSpiffeId({ trustDomain: 'cluster.local', namespace: 'foo', serviceAccount: 'sleep' });
const { publicKey } = keyPair();
const issueForEver = async (): Promise<void> => {
  for (;;) process.stdout.write(`${(await authority.issue({ id, publicKey })).serial}\n`);
};
await Promise.all(Array.from({ length: Number(burst) }, issueForEver));
