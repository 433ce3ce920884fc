// One address, one text: policy compares addresses as strings.

import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import { describe, test } from 'node:test';
import { canonicalIp, ipFromBytes, ipToBytes } from '../../src/policy/ip.ts';
import { refusal } from '../support/refusal.ts';

describe('the canonical text', () => {
  const cases: Readonly<Record<string, string>> = {
    '10.0.0.1': '10.0.0.1',
    '0.0.0.0': '0.0.0.0',
    '255.255.255.255': '255.255.255.255',
    '::': '::',
    '::1': '::1',
    '0:0:0:0:0:0:0:1': '::1',
    '2001:0DB8:0000:0000:0000:0000:0000:0001': '2001:db8::1',
    '2001:db8:0:0:1:0:0:1': '2001:db8::1:0:0:1',
    '2001:db8:0:1:1:1:1:1': '2001:db8:0:1:1:1:1:1',
    '2001:db8::': '2001:db8::',
    'FE80::A': 'fe80::a',
    'fe80::1%eth0': 'fe80::1',
    '::ffff:10.0.0.1': '10.0.0.1',
    '::FFFF:a00:1': '10.0.0.1',
    '0:0:0:0:0:ffff:10.0.0.1': '10.0.0.1',
    '::ffff:0.0.0.0': '0.0.0.0',
    '64:ff9b::10.0.0.1': '64:ff9b::a00:1',
    'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff': 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
  };
  for (const [text, canonical] of Object.entries(cases)) {
    test(`${text} is ${canonical}`, () => {
      assert.equal(canonicalIp(text), canonical);
      assert.equal(canonicalIp(canonical), canonical);
    });
  }

  for (const text of [
    '',
    '10.0.0',
    '10.0.0.256',
    '10.0.0.01',
    '0x0a000001',
    '167772161',
    '10.0.0.1:80',
    '[::1]',
    '::1/128',
    '10.0.0.1 ',
    '1::2::3',
    'localhost',
    '::ffff:10.0.0.256',
    'g::',
  ]) {
    test(`${JSON.stringify(text)} is refused`, () =>
      assert.throws(() => canonicalIp(text), refusal('CONFIG_INVALID', 'is not an IP address')));
  }
});

describe('bytes', () => {
  const cases: Readonly<Record<string, string>> = {
    '10.0.0.1': '0a000001',
    '255.255.255.255': 'ffffffff',
    '0.0.0.0': '00000000',
    '::': '0'.repeat(32),
    '::1': `${'0'.repeat(31)}1`,
    'fd00::1': `fd00${'0'.repeat(27)}1`,
    '8000::': `8${'0'.repeat(31)}`,
    '2001:db8::ff:0': `20010db8${'0'.repeat(16)}00ff0000`,
    'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff': 'f'.repeat(32),
  };
  for (const [text, hex] of Object.entries(cases)) {
    test(`${text} and back`, () => {
      assert.equal(ipToBytes(text).toString('hex'), hex);
      assert.equal(ipFromBytes(Buffer.from(hex, 'hex')), text);
    });
  }

  test('an IPv4 address in sixteen bytes is the IPv4 address', () => {
    assert.equal(ipFromBytes(Buffer.from('00000000000000000000ffff0a000001', 'hex')), '10.0.0.1');
  });

  for (const length of [0, 1, 3, 5, 8, 15, 17, 32]) {
    test(`${length} bytes are refused`, () =>
      assert.throws(() => ipFromBytes(new Uint8Array(length)), refusal('CONFIG_INVALID', `${length} bytes`)));
  }

  test('any four or sixteen bytes have a canonical text and come back from it', () => {
    let state = 1;
    const next = () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state >>> 24;
    };
    for (let round = 0; round < 400; round++) {
      const bytes = Buffer.from(Array.from({ length: round % 2 === 0 ? 4 : 16 }, () => (next() < 90 ? 0 : next())));
      const text = ipFromBytes(bytes);
      assert.ok(isIP(text) > 0, text);
      assert.equal(canonicalIp(text), text);
      assert.equal(ipToBytes(text).toString('hex'), bytes.toString('hex'));
    }
  });
});
