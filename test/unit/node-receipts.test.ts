// What control believes of receipts, and what it makes of them.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandedVersions } from '../../src/control/secrets/handed-versions.ts';
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
  const canHave = ({ key, version, id }: { key: string; version: string; id: { uri: string } }) =>
    key === 'foo/db' && ['7', '8'].includes(version) && entitled.includes(id.uri);
  const receipts = new NodeReceipts({ audit, canHave, now: () => 99 });
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

  it('of-versions-that-can-be-and-of-so-many-at-once', () => {
    const { receipts, records } = receiptsOf();
    const node = receipts.open({ node: 'n', reporter: undefined });
    node.take({ receipts: [...Array.from({ length: 1_000 }, (_, index) => receipt({ version: `forged-${index}` })), receipt()] });
    assert.deepEqual([receipts.all, records.records], [[], []]);
    node.take({ receipts: [receipt()] });
    assert.equal(receipts.all.length, 1);
  });

  it('as-having-happened-by-now', () => {
    const { receipts, records } = receiptsOf();
    receipts.open({ node: 'n', reporter: undefined }).take({ receipts: [receipt({ delivered: 98, loaded: Number.MAX_SAFE_INTEGER })] });
    const [held] = receipts.all;
    assert.deepEqual([held?.delivered, held?.loaded, held?.confirmed], [98, 99, 0]);
    assert.equal(records.records.at(-1)?.happened, '1970-01-01T00:00:00.099Z');
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
  const secrets = [{ key: 'foo/db', current: '8', versions: new Map([['8', new Map()]]) }];
  const policy = { namespace: 'foo', name: 'db', secrets: new Set(['db']), ids: new Set([A]), prefixes: [], recipients: ['foo/a'] };
  const world = secretWorld({ secrets, policies: [policy] });
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

  it('who-still-has-what-he-may-not-have-any-more', () => {
    const [status] = statusOf(secretWorld({ secrets, policies: [] }), [at({ version: '8' })]);
    assert.equal(status?.holders[0]?.holdsRevoked, true);
  });

  it('a-secret-that-is-gone-as-long-as-somebody-had-it', () => {
    const [status] = statusOf(secretWorld({ secrets: [], policies: [] }), [at({})]);
    assert.deepEqual([status?.secret, status?.exists, status?.holders[0]?.holdsRevoked], ['foo/db', false, true]);
  });
});

it('receipts-without-end-are-counted-not-written', () => {
  const records = new RecordingLog();
  const audit = new SecretAudit({ log: records.log, file: undefined, now: () => 0 });
  for (let index = 0; index < 3_000; index++) audit.receipt('n', { before: undefined, now: receipt() });
  const ofA = records.records.length;
  assert.ok(ofA >= 2_000 && ofA < 2_100, String(ofA));
  audit.receipt('n', { before: undefined, now: receipt({ reporter: `${A}b` }) });
  assert.equal(records.records.at(-1)?.spiffeId, `${A}b`);
  audit.stop();
  const { event, spiffeId, receipts } = records.records.at(-1) ?? {};
  assert.deepEqual([event, spiffeId, receipts], ['suppressed', A, 3_000 - ofA]);
});

it('versions-that-were-handed-out-are-known-for-a-while', () => {
  const handed = new HandedVersions(2);
  for (const version of ['1', '2', '3']) handed.add({ id: A, key: 'foo/db', version });
  assert.deepEqual(
    ['1', '2', '3'].map((version) => handed.has({ id: A, key: 'foo/db', version })),
    [false, true, true],
  );
  assert.equal(handed.has({ id: `${A}b`, key: 'foo/db', version: '3' }), false);
});

it('a-policy-that-changes-is-recorded-by-its-name-and-with-all-who-may-have-the-secret', () => {
  const records = new RecordingLog();
  const audit = new SecretAudit({ log: records.log, file: undefined, now: () => 0 });
  const policy = (name: string, recipient: string) => ({
    ...{ namespace: 'foo', name, secrets: new Set(['db']), ids: new Set([recipient]), prefixes: [], recipients: [recipient] },
  });
  const [one, two] = [policy('one', 'foo/a'), policy('two', 'foo/b')];
  const before = secretWorld({ secrets: [], policies: [one] });
  audit.changed(secretWorld({ secrets: [], policies: [one, two] }), before);
  audit.changed(before, secretWorld({ secrets: [], policies: [one, two] }));
  assert.deepEqual(
    records.records.map(({ secret, policy, recipients, allRecipients }) => [secret, policy, recipients, allRecipients]),
    [
      ['foo/db', 'foo/two', ['foo/b'], ['foo/a', 'foo/b']],
      ['foo/db', 'foo/two', [], ['foo/a']],
    ],
  );
});

it('refusals-without-end-are-counted-not-written', async () => {
  const records = new RecordingLog();
  const audit = new SecretAudit({ log: records.log, file: undefined, now: () => 0, suppressedMs: 10 });
  for (let index = 0; index < 500; index++) audit.refused({ secret: `foo/s${index}`, spiffeId: A });
  const ofA = records.records.length;
  assert.ok(ofA >= 100 && ofA < 110, String(ofA));
  // Another's are written all the same; and how many were not, and whose, though nobody asks again.
  audit.refused({ secret: 'foo/db', spiffeId: `${A}b` });
  assert.equal(records.records.at(-1)?.spiffeId, `${A}b`);
  const { spiffeId, refusals } = await records.find(({ event }) => event === 'suppressed');
  assert.deepEqual([spiffeId, refusals], [A, 500 - ofA]);
});
