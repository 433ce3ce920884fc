// What manifests may look like besides, and what must come out untouched.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parse } from 'yaml';
import { injectManifest } from '../../../src/injector/manifest.ts';
import { injectIn } from './injecting.ts';

const { namespace, inject } = injectIn();
const run = (text: string) => injectManifest({ text, name: 'all.yaml' }, { namespace, inject });
const POD = 'apiVersion: v1\nkind: Pod\nmetadata: {name: cart}\nspec: {containers: [{name: app, image: a}]}\n';

describe('a manifest', () => {
  const untouched: Readonly<Record<string, string>> = {
    nothing: '',
    comments: '# a\n\n---\n# b\n',
    'windows line ends': 'kind: Service\r\napiVersion: v1\r\n---\r\nkind:   ConfigMap\r\napiVersion: v1\r\n',
    'no newline at the end': 'kind: Service\napiVersion: v1',
    'a byte order mark': '\uFEFFkind: Service\napiVersion: v1\n',
    'tags of other programs': 'kind: ConfigMap\napiVersion: v1\nbinaryData: {a: !!binary aGk=, b: !mine x}\n',
    'a list of others': 'kind: List\napiVersion: v1\nitems: [{kind: Service, apiVersion: v1}]\n',
    'what is no object': '- a\n- b\n---\njust text\n---\n1\n',
    'kinds with odd names': 'kind: constructor\napiVersion: v1\n---\nkind: Pod\napiVersion: 7\n',
    'separators in text': 'kind: ConfigMap\napiVersion: v1\ndata:\n  a: |\n    ---\n    kind: Pod\n    ----\n  b: "x --- y"\n',
  };
  for (const [name, text] of Object.entries(untouched)) {
    test(`with ${name} comes out byte for byte, beside a pod too`, () => {
      assert.deepEqual(run(text), { text, skipped: [], refused: [], overlooked: [] });
      const before = text === '' || text.endsWith('\n') ? text : `${text}\n`;
      const { text: all, refused } = run(`${before}---\n${POD}`);
      assert.deepEqual(refused, []);
      assert.ok(all.startsWith(`${before}---\napiVersion: v1\nkind: Pod`));
      assert.match(all, /handfast-proxy/);
    });
  }

  const refused: Readonly<Record<string, readonly [text: string, says: RegExp]>> = {
    'a key that stands twice': ['kind: Pod\nkind: Pod\n', /document 1: not YAML as kubectl reads it: Map keys must be unique/],
    'an alias of nothing': ['kind: ConfigMap\nx: *nobody\n', /document 1: not YAML as kubectl reads it: .*nobody/],
    'aliases without end': [
      `a: &a [${'x,'.repeat(20)}]\nb: &b [${'*a,'.repeat(20)}]\nc: &c [${'*b,'.repeat(20)}]\nd: [${'*c,'.repeat(20)}]\n`,
      /document 1: not YAML as kubectl reads it: .*alias/,
    ],
    'a tag nobody knows in a pod': [POD.replace('image: a', 'image: !mine a'), /document 1: not YAML as kubectl reads it: .*!mine/],
    'two documents without a separator': [`${POD}...\n${POD}`, /document 1: not YAML as kubectl reads it: .*multiple documents/],
    'what is cut off': ['kind: Pod\nspec: {\n', /not YAML/],
  };
  for (const [name, [text, says]] of Object.entries(refused)) {
    test(`with ${name} is refused with its number`, () => assert.match(run(text).refused.join('\n'), says));
  }

  test('that-went-through-once-goes-through-again-unchanged', () => {
    const once = run(`# top\n${POD}---\nkind: Service\napiVersion: v1\n`).text;
    const twice = run(once);
    assert.equal(twice.text, once);
    assert.match(twice.skipped.join(), /the sidecar is there already/);
  });

  test('keeps-the-comments-around-what-it-changes', () => {
    const { text } = run(POD.replace('metadata: {name: cart}', '# about\nmetadata:\n  name: cart # here\n'));
    assert.match(text, /# about\nmetadata:\n {2}name: cart # here\n {2}labels:/);
  });

  test('names-the-namespace-of-each-object-or-the-one-given', () => {
    const host = (metadata: string) =>
      `apiVersion: v1\nkind: Pod\nmetadata: ${metadata}\nspec: {hostNetwork: true, containers: [{name: app}]}\n`;
    const { refused: lines } = run(`${host('{name: a, namespace: other}')}---\n${host('{name: b}')}---\n${host('{generateName: c-}')}`);
    assert.deepEqual(
      lines.map((line) => line.split(': ')[2]),
      ['Pod other/a', 'Pod shop/b', 'Pod shop/c-'],
    );
  });

  const LIST = 'apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}, spec: {containers: [{name: app}]}}]\n';
  test('with-a-list-of-one-kind-has-its-items-injected', () => {
    assert.match(run(LIST).text, /handfast-proxy/);
    assert.deepEqual(run(LIST).overlooked, []);
  });

  test('names-what-has-containers-and-is-of-another-kind', () => {
    const rollout = (kind: string, spec: string) => `apiVersion: argoproj.io/v1alpha1\nkind: ${kind}\nmetadata: {name: web}\n${spec}\n`;
    const containers = 'spec: {containers: [{name: app}]}';
    const { text, overlooked } = run(
      [rollout('Rollout', `spec: {template: {${containers}}}`), rollout('Thing', containers), rollout('Plain', 'spec: {}'), LIST].join(
        '---\n',
      ),
    );
    assert.deepEqual(overlooked, [
      'all.yaml: document 1: Rollout web: has containers, and is of no kind that is injected',
      'all.yaml: document 2: Thing web: has containers, and is of no kind that is injected',
    ]);
    assert.match(text, /handfast-proxy/);
  });

  test('with-merge-keys-means-the-same-afterwards', () => {
    const text = 'x: &x {image: a}\napiVersion: v1\nkind: Pod\nspec: {containers: [{name: app, <<: *x}]}\n';
    const after: { spec: { containers: unknown[] } } = parse(run(text).text, { version: '1.1' });
    assert.deepEqual(after.spec.containers, [{ name: 'app', image: 'a' }]);
  });
});
