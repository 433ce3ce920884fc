// Receipts: merged as they come, whatever comes twice or late, and bounded.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { believedReceipt, nothing, ReceiptBook } from '../../src/discovery/receipt-book.ts';

const A = { reporter: 'spiffe://cluster.local/ns/foo/sa/a', pod: 'foo/a' };
const receipt = (version: string, times: object) => ({ ...nothing(A), secret: 'foo/db', version, ...times });
const holds = (book: ReceiptBook, versions: string[], at: number) => book.holds(A, { secret: 'foo/db', versions, at });
const of = (book: ReceiptBook) =>
  book.all.map(({ version, delivered, loaded, confirmed, dropped, left }) => [version, delivered, loaded, confirmed, dropped, left]);

describe('a version', () => {
  it('is-delivered-used-and-taken-back', () => {
    const book = new ReceiptBook();
    holds(book, ['7'], 10);
    book.used(A, { secret: 'foo/db', version: '7', loaded: 20, confirmed: 0 });
    book.used(A, { secret: 'foo/db', version: '7', loaded: 0, confirmed: 30 });
    holds(book, ['7', '8'], 40);
    holds(book, ['8'], 50);
    assert.deepEqual(of(book), [
      ['8', 40, 0, 0, 0, 0],
      ['7', 10, 20, 30, 50, 0],
    ]);
  });

  it('that-nobody-knows-to-be-delivered-is-not-told', () => {
    const book = new ReceiptBook();
    book.used(A, { secret: 'foo/db', version: '7', loaded: 20, confirmed: 30 });
    assert.deepEqual(of(book), []);
    holds(book, ['7'], 10);
    assert.deepEqual(of(book), [['7', 10, 20, 30, 0, 0]]);
  });

  it('that-comes-again-begins-anew-and-late-word-of-before-changes-nothing', () => {
    const book = new ReceiptBook();
    holds(book, ['7'], 10);
    holds(book, [], 20);
    holds(book, ['7'], 30);
    assert.deepEqual(of(book), [['7', 30, 0, 0, 0, 0]]);
    book.told(receipt('7', { delivered: 10, dropped: 20 }));
    assert.deepEqual(of(book), [['7', 30, 0, 0, 0, 0]]);
  });

  it('nobody-hears-of-until-its-workload-is-back', () => {
    const book = new ReceiptBook();
    holds(book, ['7'], 10);
    book.leaves(A, { at: 20 });
    book.told(receipt('7', { delivered: 10, loaded: 15 }));
    assert.deepEqual(of(book), [['7', 10, 15, 0, 0, 20]]);
    holds(book, ['7'], 30);
    assert.deepEqual(of(book), [['7', 10, 15, 0, 0, 0]]);
  });
});

describe('what is told', () => {
  it('is-what-has-changed-and-nothing-twice', () => {
    const book = new ReceiptBook();
    holds(book, ['7'], 10);
    const { revision } = book;
    holds(book, ['7'], 20);
    assert.equal(book.revision, revision);
    holds(book, ['7', '8'], 30);
    assert.deepEqual(
      book.changedAfter(revision).map(({ version }) => version),
      ['8'],
    );
  });

  it('is-bounded-and-what-is-over-goes-first', () => {
    const book = new ReceiptBook({ ofInstance: 3, receipts: 5 });
    for (let version = 1; version <= 5; version++) holds(book, ['keep', String(version)], version);
    assert.deepEqual(book.all.map(({ version }) => version).sort(), ['4', '5', 'keep']);
    for (const pod of ['foo/b', 'foo/c', 'foo/d']) book.holds({ ...A, pod }, { secret: 'foo/db', versions: ['1', '2'], at: 9 });
    assert.equal(book.all.length, 5);
  });
});

describe('what is believed', () => {
  it('of-a-pod-in-its-own-namespace', () => {
    assert.equal(believedReceipt(receipt('7', { delivered: 1 }), A.reporter)?.pod, 'foo/a');
    assert.equal(believedReceipt({ ...receipt('7', {}), pod: 'bar/a' }, A.reporter)?.pod, '');
    assert.equal(
      believedReceipt({ ...receipt('7', {}), reporter: 'spiffe://cluster.local/ns/bar/sa/b' }, A.reporter)?.reporter,
      A.reporter,
    );
  });

  for (const [what, change] of Object.entries({
    'a name with a line break': { secret: 'foo/db\n{"event":"confirmed"}' },
    'a version with a colour': { version: '\u001b[31m7' },
    'a time before time': { delivered: -1 },
    'a time that is none': { confirmed: Number.NaN },
    'a time beyond all': { loaded: 2 ** 60 },
  }))
    it(`not: ${what}`, () => assert.equal(believedReceipt({ ...receipt('7', {}), ...change }, A.reporter), undefined));
});
