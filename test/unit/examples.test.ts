// Every example that the documentation shows is one that control takes.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';

const examples = new URL('../../examples/', import.meta.url);
const read = (folder: string, file: string) => ({ name: file, text: readFileSync(new URL(`${folder}/${file}`, examples), 'utf8') });

for (const file of readdirSync(new URL('policies/', examples)))
  test(`policies/${file}`, () => {
    const { config: _, ...objects } = parseObjects([read('policies', file)]);
    assert.ok(Object.values(objects).flat().length > 0);
  });

test('config, with every policy beside it', () => {
  const files = ['config', 'policies'].flatMap((folder) => readdirSync(new URL(`${folder}/`, examples)).map((file) => read(folder, file)));
  assert.ok(parseObjects(files).pods.length > 0);
});
