// The DER reader on bytes that a peer sent: it reads what is DER, throws on all else, and does nothing third.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { before, describe, test } from 'node:test';
import { HandfastError } from '../../src/errors.ts';
import { type DerNode, derChildren, derOid, readDer } from '../../src/spiffe/der.ts';
import { oid, toDer } from '../../src/spiffe/der-builder.ts';
import { readLeaf } from '../../src/spiffe/leaf.ts';
import { TestCa } from '../support/pki.ts';

const bytes = (hex: string) => Buffer.from(hex.replaceAll(' ', ''), 'hex');

/** Every node of a structure, as deep as tags say that it is constructed. */
function walk(node: DerNode): number {
  return (node.tag & 0x20) === 0 ? 1 : derChildren(node).reduce((count, child) => count + walk(child), 1);
}

describe('reading', () => {
  const accepted: readonly (readonly [name: string, hex: string, tag: number, content: string])[] = [
    ['an empty sequence', '30 00', 0x30, ''],
    ['an integer', '02 01 05', 0x02, '05'],
    ['a short length of 127', `04 7f ${'aa'.repeat(127)}`, 0x04, 'aa'.repeat(127)],
    ['a long length of 128', `04 81 80 ${'aa'.repeat(128)}`, 0x04, 'aa'.repeat(128)],
    ['a long length of 255', `04 81 ff ${'aa'.repeat(255)}`, 0x04, 'aa'.repeat(255)],
    ['a longer length of 256', `04 82 01 00 ${'aa'.repeat(256)}`, 0x04, 'aa'.repeat(256)],
    ['the longest length of 65,536', `04 83 01 00 00 ${'aa'.repeat(65_536)}`, 0x04, 'aa'.repeat(65_536)],
  ];
  for (const [name, hex, tag, content] of accepted) {
    test(`${name} is read`, () => {
      const node = readDer(bytes(hex));
      assert.equal(node.tag, tag);
      assert.equal(node.content.toString('hex'), content);
      assert.equal(node.raw.toString('hex'), bytes(hex).toString('hex'));
    });
  }

  const refused: readonly (readonly [name: string, hex: string, says: RegExp])[] = [
    ['nothing', '', /truncated/],
    ['a tag alone', '30', /truncated/],
    ['content cut short', '04 05 aa', /truncated/],
    ['a length cut short', '04 82 01', /truncated/],
    ['a byte too many', '30 00 00', /after the end/],
    ['two structures', '02 01 05 02 01 05', /after the end/],
    ['an indefinite length', '30 80 02 01 05 00 00', /indefinite/],
    ['a reserved length', '30 ff 00', /indefinite or oversized/],
    ['a length of five bytes', '30 85 00 00 00 00 01 00', /indefinite or oversized/],
    ['a length of 127 in two bytes', `04 81 7f ${'aa'.repeat(127)}`, /not minimal/],
    ['a length of 5 in two bytes', '04 81 05 aa aa aa aa aa', /not minimal/],
    ['a length of 128 in three bytes', `04 82 00 80 ${'aa'.repeat(128)}`, /not minimal/],
    ['a length of 256 in four bytes', `04 83 00 01 00 ${'aa'.repeat(256)}`, /not minimal/],
    ['a length of 4 GiB', '04 84 ff ff ff ff aa', /truncated/],
    ['a tag of several bytes', '3f 81 00 00', /multi-byte/],
    ['a context tag of several bytes', 'bf 1f 01 00', /multi-byte/],
  ];
  for (const [name, hex, says] of refused) test(`${name} is refused`, () => assert.throws(() => readDer(bytes(hex)), says));

  test('the children of a sequence, in order, and none of a primitive', () => {
    const node = readDer(bytes('30 08 02 01 05 30 00 01 01 ff'));
    assert.deepEqual(
      derChildren(node).map((child) => child.raw.toString('hex')),
      ['020105', '3000', '0101ff'],
    );
    assert.throws(() => derChildren(readDer(bytes('04 03 02 01 05'))), /not constructed/);
  });

  test('a child that reaches beyond its parent is refused, though the bytes are there', () => {
    assert.throws(() => readDer(bytes('30 04 04 03 aa bb cc')), /after the end/);
    const parent = readDer(bytes('30 04 04 03 aa bb'));
    assert.throws(() => derChildren(parent), /truncated/);
  });
});

describe('an object identifier', () => {
  const accepted: Readonly<Record<string, string>> = {
    '06 03 55 1d 11': '2.5.29.17',
    '06 08 2a 86 48 ce 3d 04 03 02': '1.2.840.10045.4.3.2',
    '06 01 00': '0.0',
    '06 01 27': '0.39',
    '06 01 28': '1.0',
    '06 01 4f': '1.39',
    '06 01 50': '2.0',
    '06 02 88 37': '2.999',
  };
  for (const [hex, dotted] of Object.entries(accepted)) test(`${dotted} is read`, () => assert.equal(derOid(readDer(bytes(hex))), dotted));

  test('an empty one, another type and an arc too large are refused', () => {
    assert.throws(() => derOid(readDer(bytes('06 00'))));
    assert.throws(() => derOid(readDer(bytes('04 03 55 1d 11'))));
    assert.throws(() => derOid(readDer(bytes('06 07 55 ff ff ff ff ff 7f'))), /too large/);
  });

  const uuid = '2.25.200595499325830943942132134799303707228';
  test('a UUID below 2.25 is an arc of 128 bits, written and read', () => {
    for (const dotted of [uuid, '2.25.0', '2.25.127', '2.25.128', `2.25.${2n ** 128n - 1n}`])
      assert.equal(derOid(readDer(toDer(oid(dotted)))), dotted);
    assert.equal(toDer(oid('1.2.840.10045.4.3.2')).toString('hex'), '06082a8648ce3d040302');
  });

  test('below 2.25, an arc of 129 bits, one cut short, one padded, a second one and none are refused', () => {
    const good = toDer(oid(uuid));
    const twin = (content: Buffer) => readDer(Buffer.concat([Buffer.of(0x06, content.length), content]));
    const content = good.subarray(2);
    assert.equal(derOid(twin(content)), uuid);
    assert.throws(() => derOid(readDer(toDer(oid(`2.25.${2n ** 128n}`)))), /too large/);
    assert.throws(() => derOid(twin(content.subarray(0, -1))), /one whole arc/);
    assert.throws(() => derOid(twin(Buffer.concat([Buffer.of(0x69, 0x80), content.subarray(1)]))), /not minimal/);
    assert.throws(() => derOid(twin(Buffer.concat([content, Buffer.of(1)]))));
    assert.throws(() => derOid(twin(Buffer.of(0x69))), /empty/);
  });

  test('a parent with more children than its reader wants is refused', () => {
    const node = readDer(bytes('30 06 02 01 05 02 01 05'));
    assert.equal(derChildren(node, 2).length, 2);
    assert.throws(() => derChildren(node, 1), /more than 1/);
  });

  test('one that ends inside an arc is refused: it is not the shorter one', () => {
    assert.throws(() => derOid(readDer(bytes('06 04 55 1d 11 80'))));
  });

  test('an arc padded with leading zeros is refused: one identifier has one encoding (X.690, 8.19.2)', () => {
    assert.throws(() => derOid(readDer(bytes('06 04 55 1d 80 11'))));
  });
});

describe('a real certificate', () => {
  let der: Buffer;
  before(async () => {
    const ca = await TestCa.create();
    der = new X509Certificate((await ca.svid('spiffe://cluster.local/ns/foo/sa/sleep')).chain).raw;
  });

  test('is read to its last node', () => assert.ok(walk(readDer(der)) > 30));

  test('cut at any byte is refused', () => {
    for (let length = 0; length < der.length; length++) assert.throws(() => readDer(der.subarray(0, length)), `at ${length}`);
  });

  test('with anything after it is refused', () => {
    for (const tail of ['00', '3000', 'ff']) assert.throws(() => readDer(Buffer.concat([der, bytes(tail)])));
  });

  test('mutated at random is read or refused, and nothing else, in bounded time', () => {
    const random = lcg(20_300_101);
    let refused = 0;
    for (let round = 0; round < 4000; round++) {
      const mutated = Buffer.from(der);
      for (let i = 0; i <= random() % 4; i++) mutated[random() % mutated.length] = random() % 256;
      try {
        assert.ok(walk(readDer(mutated)) < 2000);
      } catch (error) {
        assert.ok(error instanceof Error && error.constructor.name === 'DerError', String(error));
        refused++;
      }
    }
    assert.ok(refused > 100 && refused < 4000);
  });

  test('mutated at random is a leaf or is refused by one of our codes, when OpenSSL reads it at all', () => {
    const random = lcg(7);
    let [leaves, refusals] = [0, 0];
    for (let round = 0; round < 4000; round++) {
      const mutated = Buffer.from(der);
      mutated[random() % mutated.length] = random() % 256;
      let certificate: X509Certificate;
      try {
        certificate = new X509Certificate(mutated);
      } catch {
        continue;
      }
      try {
        assert.match(readLeaf(certificate).uri, /^spiffe:\/\/[a-z0-9._-]+\/[A-Za-z0-9._/-]+$/);
        leaves++;
      } catch (error) {
        assert.ok(error instanceof HandfastError, String(error));
        assert.ok(['SPIFFE_ID_INVALID', 'LEAF_INVALID'].includes(error.code), error.code);
        refusals++;
      }
    }
    assert.ok(leaves > 100 && refusals > 100, `${leaves} leaves, ${refusals} refusals`);
  });
});

/** Numbers that are the same in every run (Numerical Recipes' constants). */
function lcg(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state >>> 8;
  };
}
