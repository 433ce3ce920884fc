// Sets of objects over time: what did not change stays the same object, and a proposal replaces what has its name.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ObjectParser, parseObjects, withProposed } from '../../src/control/objects/parse-objects.ts';
import { objectText, parseTexts, podText, scopeText } from '../support/policy-yaml.ts';
import { refusal } from '../support/refusal.ts';

const strict = objectText('PeerAuthentication', '{mtls: {mode: STRICT}}');
const permissive = objectText('PeerAuthentication', '{mtls: {mode: PERMISSIVE}}');
const mesh = (spec: string) => objectText('MeshConfig', spec, { name: 'mesh' });

describe('a file whose text did not change', () => {
  test('keeps its objects', () => {
    const parser = new ObjectParser();
    const kept = {
      name: 'kept.yaml',
      text: [strict, podText('p'), mesh('{}'), scopeText({ kind: 'DestinationRule', spec: '{host: a}' })].join('---\n'),
    };
    const first = parser.parse([kept, { name: 'b.yaml', text: podText('q', { ip: '10.0.0.1' }) }]);
    const second = parser.parse([{ name: 'b.yaml', text: podText('q', { ip: '10.0.0.2' }) }, kept]);
    assert.equal(second.peerAuthentications[0], first.peerAuthentications[0]);
    assert.equal(second.scopeConfigs[0], first.scopeConfigs[0]);
    assert.equal(second.config, first.config);
    assert.equal(second.pods[1], first.pods[0]);
    assert.notEqual(second.pods[0], first.pods[1]);
  });
  test('is refused again for what it had wrong', () => {
    const parser = new ObjectParser();
    const bad = { name: 'bad.yaml', text: objectText('PeerAuthentication', '{}') };
    for (let time = 0; time < 2; time++)
      assert.throws(() => parser.parse([bad]), refusal('OBJECT_INVALID', 'bad.yaml:4: spec: sets no mode'));
  });
});

describe('a proposal', () => {
  test('replaces the object of its kind, namespace and name, and leaves the others', () => {
    const current = parseTexts(strict, podText('p', { ip: '10.0.0.1' }));
    const both = withProposed(current, parseTexts(permissive));
    assert.deepEqual(
      both.peerAuthentications.map(({ mode }) => mode),
      ['PERMISSIVE'],
    );
    assert.equal(both.pods[0], current.pods[0]);
    const other = objectText('PeerAuthentication', '{mtls: {mode: DISABLE}}', { name: 'b' });
    assert.deepEqual(
      withProposed(current, parseTexts(other)).peerAuthentications.map(({ mode }) => mode),
      ['STRICT', 'DISABLE'],
    );
  });
  test('may move a pod to another address', () => {
    const moved = withProposed(parseTexts(podText('p', { ip: '10.0.0.1' })), parseTexts(podText('p', { ip: '10.0.0.2' })));
    assert.deepEqual(
      moved.pods.map(({ status }) => status.podIP),
      ['10.0.0.2'],
    );
  });
  test('that does not go with what is there is refused', () =>
    assert.throws(
      () => withProposed(parseTexts(podText('p', { ip: '10.0.0.1' })), parseTexts(podText('q', { ip: '10.0.0.1' }))),
      refusal('OBJECT_INVALID', 'proposed: address 10.0.0.1 is already at in force'),
    ));
  test('of a MeshConfig replaces it; without one the present one stays', () => {
    const current = parseTexts(mesh('{rootNamespace: root}'));
    assert.equal(withProposed(current, parseTexts(strict)).config, current.config);
    assert.equal(withProposed(current, parseTexts(mesh('{rootNamespace: other}'))).config.rootNamespace, 'other');
  });
  test('is read with the present root namespace', () => {
    const text = objectText('PeerAuthentication', '{selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}}', { namespace: 'istio-system' });
    const current = parseTexts(mesh('{rootNamespace: root}'));
    withProposed(current, parseObjects([{ name: 'a.yaml', text }], current.config));
    assert.throws(() => parseTexts(text), refusal('OBJECT_INVALID', 'it would select nobody'));
  });
});
