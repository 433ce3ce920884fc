// What control believes of receipts, and what it makes of them.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NodeReceipts } from '../../src/control/secrets/node-receipts.ts';
import { SecretAudit } from '../../src/control/secrets/secret-audit.ts';
import { secretWorld } from '../../src/control/secrets/secret-world.ts';
import { statusOf } from '../../src/control/secrets/secrets-route.ts';
import { nothing } from '../../src/discovery/receipt-book.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const A = 'spiffe://cluster.local/ns/foo/sa/a';
const receipt = (change: object = {}) => ({
  ...nothing({ reporter: A, pod: 'foo/a' }),
  secret: 'foo/db',
  version: '7',
  delivered: 1,
  ...change,
});

function receiptsOf() {
  const records = new RecordingLog();
  const audit = new SecretAudit({ log: records.log, file: undefined, now: () => 0 });
  let entitled: readonly string[] = [A];
  const receipts = new NodeReceipts({ audit, isEntitled: ({ key, id }) => key === 'foo/db' && entitled.includes(id.uri), now: () => 99 });
  const entitle = (ids: readonly string[]) => {
    entitled = ids;
  };
  return { receipts, records, entitle };
}

describe('believed', () => {
  it('of-whoever-is-entitled-and-of-nobody-else', () => {
    const { receipts, records } = receiptsOf();
    const node = receipts.open({ node: 'n', reporter: undefined });
    node.take({
      receipts: [
        receipt(),
        receipt({ reporter: `${A}b` }),
        receipt({ secret: 'foo/other' }),
        receipt({ reporter: 'nobody' }),
        receipt({ reporter: 'spiffe://cluster.local/handfast/agent/n' }),
      ],
    });
    assert.deepEqual(
      receipts.all.map(({ reporter, secret, node }) => [reporter, secret, node]),
      [[A, 'foo/db', 'n']],
    );
    assert.equal(records.records.filter(({ event }) => event === 'delivered').length, 1);
  });

  it('of-whoever-was-when-it-was-known-so-that-what-he-still-has-is-seen', () => {
    const { receipts, entitle } = receiptsOf();
    const node = receipts.open({ node: 'n', reporter: undefined });
    node.take({ receipts: [receipt()] });
    entitle([]);
    node.take({ receipts: [receipt({ loaded: 2 }), receipt({ version: '8' })] });
    assert.deepEqual(
      receipts.all.map(({ version, loaded }) => [version, loaded]),
      [['7', 2]],
    );
  });

  it('a-workload-that-comes-itself-speaks-for-itself', () => {
    const { receipts } = receiptsOf();
    receipts.open({ node: 'workload b', reporter: `${A}b` }).take({ receipts: [receipt()] });
    assert.deepEqual(receipts.all, []);
    receipts.open({ node: 'workload a', reporter: A }).take({ receipts: [receipt({ reporter: `${A}b` })] });
    assert.deepEqual(
      receipts.all.map(({ reporter }) => reporter),
      [A],
    );
  });

  it('until-its-agent-is-gone-and-again-when-it-is-back', () => {
    const { receipts } = receiptsOf();
    const [old, next] = [receipts.open({ node: 'n', reporter: undefined }), receipts.open({ node: 'n', reporter: undefined })];
    old.take({ receipts: [receipt()] });
    old.end();
    assert.equal(receipts.all[0]?.left, 0);
    next.end();
    assert.equal(receipts.all[0]?.left, 99);
    receipts.open({ node: 'n', reporter: undefined }).take({ receipts: [receipt()] });
    assert.equal(receipts.all[0]?.left, 0);
  });
});

describe('shown', () => {
  const world = secretWorld({ secrets: [{ key: 'foo/db', current: '8', versions: new Map([['8', new Map()]]) }], policies: [] });
  const at = (change: object) => ({ ...receipt(change), node: 'n' });

  it('who-still-has-what-was-taken-back', () => {
    const [status] = statusOf(world, [at({}), at({ version: '8' }), at({ version: '6', dropped: 5 })]);
    assert.deepEqual(
      status?.holders.map(({ version, holdsRevoked }) => [version, holdsRevoked]),
      [
        ['7', true],
        ['8', false],
        ['6', false],
      ],
    );
  });

  it('a-secret-that-is-gone-as-long-as-somebody-had-it', () => {
    const [status] = statusOf(secretWorld({ secrets: [], policies: [] }), [at({})]);
    assert.deepEqual([status?.secret, status?.exists, status?.holders[0]?.holdsRevoked], ['foo/db', false, true]);
  });
});

it('refusals-without-end-are-counted-not-written', () => {
  const records = new RecordingLog();
  const audit = new SecretAudit({ log: records.log, file: undefined, now: () => 0 });
  for (let index = 0; index < 500; index++) audit.refused({ secret: `foo/s${index}`, spiffeId: A });
  const ofA = records.records.length;
  assert.ok(ofA >= 100 && ofA < 110, String(ofA));
  // Another's are written all the same, with how many were not.
  audit.refused({ secret: 'foo/db', spiffeId: `${A}b` });
  assert.equal(records.records.at(-1)?.suppressed, 500 - ofA);
});
