// The :authority of a CONNECT, in the one text form that addresses have everywhere.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseAuthority } from '../../src/hbone/connect-request.ts';

const READ: Readonly<Record<string, string>> = {
  '10.0.0.7:8080': '10.0.0.7',
  '[fd00::7]:8080': 'fd00::7',
  '[FD00:0:0::7]:8080': 'fd00::7',
  '[::ffff:10.0.0.7]:8080': '10.0.0.7',
  '[::ffff:a00:7]:8080': '10.0.0.7',
  // Not mapped, but compatible (RFC 4291, 2.5.5.1): an address of its own, which is no IPv4 one.
  '[::10.0.0.7]:8080': '::a00:7',
};
const REFUSED = [
  '',
  'localhost:80',
  '10.0.0.7',
  '10.0.0.7:0',
  '10.0.0.7:65536',
  '10.0.0.256:80',
  'fd00::7:80',
  '[10.0.0.7]:80',
  '[fd00::g]:80',
  '[fd00::7%eth0]:80',
];

describe('an authority', () => {
  for (const [text, address] of Object.entries(READ))
    it(`${text} is ${address}`, () => assert.deepEqual(parseAuthority(text), { address, port: 8080 }));
  for (const text of REFUSED) it(`${JSON.stringify(text)} is none`, () => assert.equal(parseAuthority(text), undefined));
});
