// What a client that could not name all it held takes for gone, when the first response of its new stream is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HeldNames } from '../../src/discovery/held-names.ts';

const said = (names: readonly string[], removedResources: string[] = []) => ({
  resources: names.map((name) => ({ name, version: 'v', aliases: [], resource: undefined })),
  removedResources,
});

test('the names of a refused first response are there: a server need not send them again with the next', () => {
  const held = new HeldNames();
  const all = Array.from({ length: 11_000 }, (_, index) => `${'n'.repeat(100)}-${index}`);
  held.take(said(all), []);
  assert.deepEqual(held.named(), {}, 'too many to be named');
  const [gone = '', goneLater = '', ...rest] = all;
  assert.deepEqual(held.removedBy(said([goneLater, ...rest])), [gone]);
  // Not taken.
  for (const next of [said(['new'], [goneLater]), said(['new'])])
    assert.deepEqual([...held.removedBy(next)].sort(), [gone, goneLater].sort());
});
