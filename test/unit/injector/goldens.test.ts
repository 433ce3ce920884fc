// Each goldens/*.in.yaml comes out as the file beside it: *.out.yaml, *.skipped.txt or *.refused.txt. `UPDATE_GOLDENS=1` writes those anew; read them then.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { type InjectedManifest, injectManifest } from '../../../src/injector/manifest.ts';
import { type Circumstances, injectIn } from './injecting.ts';

const FOLDER = new URL('goldens/', import.meta.url);
const UPDATE = process.env.UPDATE_GOLDENS === '1';
const EXTENSIONS = ['.out.yaml', '.skipped.txt', '.refused.txt'];

const path = (name: string) => fileURLToPath(new URL(name, FOLDER));
const cases = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.in.yaml'))
  .map((file) => basename(file, '.in.yaml'));

/** `# config: {...}`, `# namespace: ...` and `# namespace-labels: {...}` at the top of the file. */
function circumstances(text: string): Circumstances {
  const said = (name: string): unknown => {
    const [, value] = new RegExp(`^# ${name}: (.+)$`, 'm').exec(text) ?? [];
    return value === undefined ? undefined : parse(value);
  };
  return { config: said('config'), namespace: said('namespace'), namespaceLabels: said('namespace-labels') };
}

function outcome({ text, skipped, refused }: InjectedManifest, before: string): { extension: string; text: string } {
  if (refused.length > 0) return { extension: '.refused.txt', text: `${refused.join('\n')}\n` };
  if (text === before) return { extension: '.skipped.txt', text: `${skipped.join('\n')}\n` };
  return { extension: '.out.yaml', text };
}

describe('goldens', () => {
  for (const name of cases) {
    test(name, () => {
      const text = readFileSync(path(`${name}.in.yaml`), 'utf8');
      const { namespace, inject } = injectIn(circumstances(text));
      const came = outcome(injectManifest({ text, name: `${name}.in.yaml` }, { namespace, inject }), text);
      const golden = path(name + came.extension);
      if (UPDATE) {
        for (const extension of EXTENSIONS) rmSync(path(name + extension), { force: true });
        writeFileSync(golden, came.text);
      }
      assert.ok(existsSync(golden), `there is no ${basename(golden)}; it would be:\n${came.text}`);
      assert.equal(came.text, readFileSync(golden, 'utf8'));
    });
  }

  test('there-are-enough-and-each-has-its-input', () => {
    assert.ok(cases.length >= 30);
    const inputs = new Set(cases.map((name) => `${name}.in.yaml`));
    const strays = readdirSync(FOLDER).filter(
      (file) => !inputs.has(file) && !EXTENSIONS.some((end) => cases.includes(file.replace(end, ''))),
    );
    assert.deepEqual(strays, []);
  });
});
