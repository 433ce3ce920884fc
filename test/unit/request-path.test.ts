// Paths that are written to be read in two ways: what goes on, in which readings it is judged, and what is refused.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { readPath } from '../../src/policy/request-path.ts';

const get = (target: string) => readPath(target, { method: 'GET' });

describe('what goes on, and how it is read', () => {
  /** Target to what goes on, and to the other readings. */
  const table: Readonly<Record<string, readonly [forward: string, ...others: string[]]>> = {
    '/': ['/'],
    '/a/b.c-d_e~f': ['/a/b.c-d_e~f'],
    "/a!$&'()*+,=:@": ["/a!$&'()*+,=:@"],
    '/a/': ['/a/'],
    '//': ['/'],
    '//a///b': ['/a///b', '/a/b'],
    '/x/..//y/admin': ['/y/admin'],
    '/\\x/admin': ['/x/admin'],
    '/admin%3Fx': ['/admin%3Fx', '/admin'],
    '/admin%23x': ['/admin%23x', '/admin'],
    '/a/.': ['/a/'],
    '/a/./b': ['/a/b'],
    '/a/../b': ['/b'],
    '/a/..': ['/'],
    '/a//../b': ['/a/b'],
    '/a/b/../../c': ['/c'],
    '/...': ['/...'],
    '/.a/..b': ['/.a/..b'],
    '/%61': ['/a'],
    '/a/%2e%2E/': ['/'],
    '/a/%2e%2e/admin': ['/admin'],
    '/a/.%2e/admin': ['/admin'],
    '/a\\b': ['/a/b'],
    '/a\\..\\admin': ['/admin'],
    '/a%2fb': ['/a%2Fb', '/a/b'],
    '/a%2F..%2Fadmin': ['/a%2F..%2Fadmin', '/admin'],
    '/a%5cb': ['/a%5Cb', '/a/b'],
    '/a%5C..%5cadmin': ['/a%5C..%5Cadmin', '/admin'],
    '/a%252fb': ['/a%252fb', '/a/b'],
    '/a/%252e%252e/admin': ['/a/%252e%252e/admin', '/admin'],
    '/%2561dmin': ['/%2561dmin', '/admin'],
    '/a;v=1/b': ['/a;v=1/b', '/a/b'],
    '/public/..;/admin': ['/public/..;/admin', '/admin'],
    '/public/..;a=b/admin': ['/public/..;a=b/admin', '/admin'],
    '/public/%2e%2e;/admin': ['/public/..;/admin', '/admin'],
    '/public/..%3b/admin': ['/public/..%3B/admin', '/public/..;/admin', '/admin'],
    '/admin;': ['/admin;', '/admin'],
    '/;/admin': ['/;/admin', '/admin'],
    '/admin%3A1': ['/admin%3A1', '/admin:1'],
    '/a%20b': ['/a%20b'],
    '/a b': ['/a%20b'],
    '/\xc3\xbc': ['/%C3%BC'],
    '/%c3%bc': ['/%C3%BC'],
    '/a/http://b': ['/a/http://b', '/a/http:/b'],
    'http://a': ['/'],
    'http://a/b/../c': ['/c'],
    'HTTPS://a/b': ['/b'],
  };
  for (const [target, [forward, ...others]] of Object.entries(table)) {
    test(target, () => {
      const read = get(target);
      assert.ok(!('refusal' in read), JSON.stringify(read));
      assert.equal(read.forward, forward);
      assert.deepEqual(read.readings, [forward, ...others]);
    });
  }

  test('the query stays as it is', () => {
    for (const query of ['?', '?a=b', '?a?b', '?../..', '?%zz', '?a=//b;c\\d']) {
      const read = get(`/a/../b${query}`);
      assert.deepEqual(read, { forward: '/b', query, readings: ['/b'] });
    }
  });

  test('OPTIONS *', () => assert.deepEqual(readPath('*', { method: 'OPTIONS' }), { forward: '*', query: '', readings: ['*'] }));
  test('an absolute target has its host', () =>
    assert.deepEqual(get('http://a:80?b'), { forward: '/', query: '?b', readings: ['/'], authority: 'a:80' }));
});

describe('refused', () => {
  for (const target of [
    '',
    'a',
    '*',
    '?',
    '/..',
    '/../a',
    '/a/../../b',
    '/%2e%2e/a',
    '/\\..\\..',
    '/..;/a',
    '/a/..;/..;/b',
    '/a/..%2f..%2fb',
    '/%252e%252e/a',
    '/a%00b',
    '/a%0d%0ab',
    '/a%250ab',
    `/${'%41'.repeat(513)}`,
    '/a%2500b',
    '/a%',
    '/a%2',
    '/a%zz',
    '/a%2g',
    '/a#b',
    'http://',
    'http:///a',
    'http://u@a/b',
    'http://u:p@a/b',
    'ftp://a/b',
    'a:80',
    'http:/a',
    '\\a',
  ])
    test(JSON.stringify(target), () => assert.ok('refusal' in get(target)));
});

describe('whatever is written', () => {
  const pieces = [
    '/',
    '//',
    '.',
    '..',
    ';',
    ';a=1',
    '%2e',
    '%2E',
    '%2f',
    '%5c',
    '\\',
    '%25',
    '%252e',
    '%252f',
    '%3b',
    'a',
    'admin',
    '%61',
    '%20',
    '~',
    ':',
  ];
  let seed = 1;
  const random = (below: number) => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    return seed % below;
  };
  const targets = Array.from(
    { length: 20_000 },
    () => `/${Array.from({ length: 1 + random(9) }, () => pieces[random(pieces.length)]).join('')}`,
  );

  test('what goes on is in normal form: read again it is the same', () => {
    let read = 0;
    for (const target of targets) {
      const path = get(target);
      if ('refusal' in path) continue;
      read++;
      assert.deepEqual(get(path.forward), path, target);
    }
    assert.ok(read > 2_000);
  });

  test('no reading has a dot segment, and none but what goes on has two slashes', () => {
    for (const target of targets) {
      const path = get(target);
      if ('refusal' in path) continue;
      assert.ok(path.readings.length <= 16);
      for (const reading of path.readings) {
        assert.doesNotMatch(reading, /\/\.{1,2}(?:\/|$)/, target);
        if (reading !== path.forward) assert.doesNotMatch(reading, /\/\//, target);
      }
    }
  });

  test('who decodes, merges, cuts and resolves arrives at one of the readings', () => {
    const plain = (path: string) => path.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
    for (const target of targets) {
      const path = get(target);
      if ('refusal' in path) continue;
      // A servlet container: parameters off, decoded, slashes merged, dots resolved.
      const read = plain(path.forward.replaceAll(/;[^/]*/g, ''))
        .replaceAll(/%2f/gi, '/')
        .replaceAll(/\/+/g, '/');
      // What is to be decoded again is another test's.
      if (/%[0-9a-f]{2}/i.test(read)) continue;
      const pathname = new URL(`http://a${read.replaceAll(' ', '%20')}`).pathname.replaceAll(/\/+/g, '/');
      assert.ok(path.readings.map((one) => plain(one)).includes(plain(pathname)), `${target}: ${pathname} is none of ${path.readings}`);
    }
  });

  test('a long one costs what it is long', () => {
    const long = `/${'a;%2f..%25'.repeat(6_000)}`;
    const begun = performance.now();
    get(long);
    get(`/${'/'.repeat(60_000)}`);
    get(`/${'%25'.repeat(20_000)}`);
    get(`/a${'/..'.repeat(20_000)}`);
    assert.ok(performance.now() - begun < 5_000);
  });
});
