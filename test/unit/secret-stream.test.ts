// A stream for secrets where there are none to be had: whoever asks hears why, and certificates come all the same.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { status } from '@grpc/grpc-js';
import { InstanceHoldings } from '../../src/agent/instance-holdings.ts';
import { SecretStream } from '../../src/agent/secret-streams.ts';
import type { ServedWorkload } from '../../src/agent/stream-session.ts';
import { ReceiptBook } from '../../src/discovery/receipt-book.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';

const certificates = {
  resources: () => new Map([['default', { version: '1', value: new Uint8Array() }]]),
  subscribe: () => () => undefined,
};

it('an-agent-of-istiod-says-that-it-has-none', () => {
  const workload = {
    session: { secrets: certificates, workloadSecrets: undefined },
    identity: { svid: { id: { uri: 'spiffe://cluster.local/ns/foo/sa/a' } } },
  } as unknown as ServedWorkload;
  const stream = () =>
    new SecretStream(workload, { holdings: new InstanceHoldings({ receipts: new ReceiptBook(), now: () => 0 }), saysGone: false });
  assert.throws(() => stream().admit({ names: ['secret:foo/db'], nodeId: undefined, holds: false }), { code: status.FAILED_PRECONDITION });
  const other = stream();
  assert.equal(other.admit({ names: ['default'], nodeId: undefined, holds: false }), false);
  assert.equal(other.resources(typeUrls.secret)?.has('default'), true);
});
