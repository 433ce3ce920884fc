// The annotation by which a pod says which secrets its sidecar is to have at hand.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { injectIn } from './injecting.ts';

const { inject } = injectIn();
const injected = (secrets: string) =>
  inject({
    metadata: { name: 'a', annotations: { 'handfast.io/secrets': secrets } },
    spec: { containers: [{ name: 'app', image: 'app:1' }] },
  });

describe('handfast.io/secrets', () => {
  it('is-passed-on-each-once', () => {
    const args = [...JSON.stringify(injected('shop/db, other/key.v2,shop/db')).matchAll(/--secret=[^"]*/g)].map(([text]) => text);
    assert.deepEqual([...new Set(args)], ['--secret=shop/db', '--secret=other/key.v2']);
    assert.equal(args.length, 2);
  });

  for (const text of [
    '',
    'db',
    'shop/',
    '../db',
    'shop/db/key',
    'shop/$(SECRET)',
    'shop/db,',
    '--secret=shop/db',
    Array.from({ length: 33 }, (_, at) => `shop/s${at}`).join(),
  ])
    it(`is-refused: ${text.slice(0, 20)}`, () =>
      assert.match(JSON.stringify(injected(text)), /annotation handfast\.io\/secrets: .* is not accepted/));
});
