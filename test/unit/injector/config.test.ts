// The injector's configuration: what is refused, with its line, and what stands where nothing is said.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseInjectorConfig, revisionOf } from '../../../src/injector/config.ts';
import { parseQuantity } from '../../../src/injector/quantity.ts';
import { refusal } from '../../support/refusal.ts';

const parse = (text: string, image?: string) => parseInjectorConfig({ text, name: 'injector.yaml', image });

describe('the configuration', () => {
  test('needs-an-image-and-nothing-else', () => {
    const config = parse('image: registry.example/handfast:1\n');
    assert.equal(config.sidecar, 'native');
    assert.equal(config.tokenExpirationSeconds, 3600);
    assert.deepEqual(config.resources.limits, { cpu: '2000m', memory: '512Mi' });
    assert.throws(() => parse('sidecar: native\n'), refusal('CONFIG_INVALID', 'injector.yaml:1: image'));
  });

  test('is-frozen-all-the-way', () => {
    const config = parse('image: a\nresources: {limits: {cpu: 1000m}}\n');
    assert.ok(Object.isFrozen(config) && Object.isFrozen(config.resources) && Object.isFrozen(config.resources.limits));
  });

  test('replaces-resources-as-a-whole', () => {
    assert.deepEqual(parse('image: a\nresources: {requests: {cpu: 100m}}\n').resources, { requests: { cpu: '100m' } });
  });

  test('takes-an-image-from-elsewhere', () => {
    assert.equal(parse('{}\n', 'registry.example/other:2').image, 'registry.example/other:2');
    assert.equal(parse('image: a\n', 'b').image, 'b');
  });

  const refused: Readonly<Record<string, readonly [text: string, says: string | RegExp]>> = {
    'unknown fields': ['image: a\nimagePullPolice: Always\n', 'injector.yaml:2: unknown field imagePullPolice'],
    'unknown fields deep inside': [
      'image: a\nresources:\n  limits: {gpu: "1"}\n',
      'unknown field resources.limits.gpu; accepted: cpu, memory',
    ],
    'a prototype': ['image: a\n__proto__: {}\n', 'injector.yaml:2: unknown field __proto__'],
    aliases: ['image: &a b\nlogLevel: *a\n', 'aliases'],
    'what is no YAML': ['image: [\n', 'not YAML'],
    'an empty file': ['', 'no settings'],
    'an image with white space': ['image: a b\n', 'image'],
    'tokens that Kubernetes refuses': ['image: a\ntokenExpirationSeconds: 599\n', 'tokenExpirationSeconds'],
    'tokens of more than a day': ['image: a\ntokenExpirationSeconds: 86401\n', 'tokenExpirationSeconds'],
    'a quantity that is none': ['image: a\nresources: {limits: {cpu: some}}\n', 'resources.limits.cpu'],
    'a directory that climbs': ['image: a\nagentSocketDirectory: /run/../etc\n', 'agentSocketDirectory'],
    'too many workers': ['image: a\nworkers: 65\n', 'workers'],
  };
  for (const [name, [text, says]] of Object.entries(refused))
    test(`refuses ${name}`, () => assert.throws(() => parse(text), refusal('CONFIG_INVALID', says)));

  test('has-a-revision-that-tells-it-from-others-whatever-the-order', () => {
    const first = revisionOf(parse('image: a\nworkers: 2\n'));
    assert.equal(revisionOf(parse('workers: 2\nimage: a\n')), first);
    assert.notEqual(revisionOf(parse('image: a\nworkers: 3\n')), first);
  });
});

describe('a quantity', () => {
  const taken: Readonly<Record<string, number>> = {
    '100m': 0.1,
    '2': 2,
    '.5': 0.5,
    '1.': 1,
    '1Ki': 1024,
    '2Gi': 2 ** 31,
    '1e3': 1000,
    '1E': 1e18,
    '1E2': 100,
    '+3k': 3000,
    '5n': 5e-9,
  };
  for (const [text, amount] of Object.entries(taken))
    test(`${text} is ${amount}`, () => assert.ok(Math.abs((parseQuantity(text) ?? 0) / amount - 1) < 1e-9));
  for (const text of ['', '-1', '1 Gi', '1gi', 'Mi', '1e', '1Mi2', '0x10', '∞'])
    test(`${JSON.stringify(text)} is none`, () => assert.equal(parseQuantity(text), undefined));
});
