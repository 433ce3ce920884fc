// The secrets of processes without a sidecar: nobody hears of what they hold once the agent has let go of them.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { SocketSecrets } from '../../src/agent/socket-secrets.ts';
import type { Registration } from '../../src/agent/workload-registrations.ts';
import type { WorkloadSessions } from '../../src/agent/workload-sessions.ts';
import { ReceiptBook } from '../../src/discovery/receipt-book.ts';
import { encodeWorkloadSecret } from '../../src/discovery/workload-secret-codec.ts';

const A = 'spiffe://cluster.local/ns/foo/sa/a';

it('what-a-process-holds-is-heard-of-until-it-is-let-go-of', async () => {
  const of = { key: 'foo/db', current: '7', versions: new Map([['7', new Map([['key', Buffer.from('sesame')]])]]) };
  const held = { secret: of, resource: encodeWorkloadSecret(of) };
  const workloadSecrets = { hold: () => () => undefined, answer: () => held, subscribe: () => () => undefined };
  const session = { ready: Promise.resolve({ svid: { id: { uri: A } } }), identity: {}, workloadSecrets, release: () => undefined };
  const sessions = { acquire: () => session } as unknown as WorkloadSessions;
  const receipts = new ReceiptBook();
  const secrets = new SocketSecrets({ sessions, receipts, now: () => 9 });
  const registration = { token: { current: 'token' }, spiffeId: { uri: A }, tokenFile: 'token' } as unknown as Registration;
  await (await secrets.of(registration))?.answer('foo/db', { waitMs: 0 });
  assert.deepEqual(
    receipts.all.map(({ version, left }) => [version, left]),
    [['7', 0]],
  );
  secrets.close();
  await turn();
  assert.deepEqual(
    receipts.all.map(({ version, left, dropped }) => [version, left, dropped]),
    [['7', 9, 0]],
  );
});
