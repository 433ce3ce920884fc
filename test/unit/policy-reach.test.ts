// How many sidecars have a policy: whom it selects, what each should hold, what each has confirmed, and whose word counts.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { startController } from '../../src/control/controller.ts';
import { NodeReports } from '../../src/control/node-reports.ts';
import type { EffectiveObjects } from '../../src/control/objects/mesh-objects.ts';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import { reachOf, selectedBy } from '../../src/control/policy-reach.ts';
import { isUpToDate } from '../../src/control/reach-status.ts';
import { ConfirmedPolicies, TakenByStream } from '../../src/discovery/confirmed-policies.ts';
import { ownPoliciesDigest } from '../../src/discovery/own-policies.ts';
import { ResourceCache } from '../../src/discovery/resource-cache.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const pod = (name: string, namespace = 'foo', labels = 'security.istio.io/tlsMode: istio') =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}, namespace: ${namespace}, labels: {app: ${name}, ${labels}}}\n`;
const strict = (name: string, namespace: string, selector = '') =>
  `apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: ${name}, namespace: ${namespace}}\nspec: {${selector}mtls: {mode: STRICT}}\n`;
const deny = (name: string, namespace: string, selector = '') =>
  `apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ${name}, namespace: ${namespace}}\nspec: {${selector}action: DENY, rules: [{}]}\n`;
const canary = `apiVersion: handfast.io/v1alpha1
kind: ScopeConfig
metadata: {name: canary, namespace: foo}
spec:
  object: {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict}, spec: {mtls: {mode: STRICT}}}
  rollout: {steps: [{pods: 1}, {percent: 100}], intervalSeconds: 10}
`;
const effective = (...documents: string[]): EffectiveObjects => ({
  objects: parseObjects([{ name: 'x.yaml', text: documents.join('---\n') }]),
  selections: new Map([['foo/canary', new Set(['foo/b'])]]),
});

describe('reach', () => {
  const world = effective(
    pod('a'),
    pod('b'),
    pod('c', 'bar'),
    pod('legacy', 'foo', 'x: y'),
    strict('all', 'istio-system'),
    strict('foo', 'foo'),
    strict('one', 'foo', 'selector: {matchLabels: {app: a}}, '),
    deny('none', 'foo', 'selector: {matchLabels: {app: nobody}}, '),
    canary,
  );

  test('counts the sidecars that a policy selects, and those that are up to date', () => {
    const reach = reachOf(selectedBy(world), (name) => name === 'foo/a');
    assert.deepEqual(Object.fromEntries(reach), {
      'PeerAuthentication istio-system/all': { selected: 3, upToDate: 1 },
      'PeerAuthentication foo/foo': { selected: 2, upToDate: 1 },
      'PeerAuthentication foo/one': { selected: 1, upToDate: 1 },
      'AuthorizationPolicy foo/none': { selected: 0, upToDate: 0 },
      'ScopeConfig foo/canary': { selected: 1, upToDate: 0 },
    });
  });
});

describe('what should be held', () => {
  function control(...documents: string[]) {
    const cache = new ResourceCache();
    const objects = new Snapshot(effective(...documents));
    const stop = new AbortController();
    const { expectedDigest } = startController({
      effective: objects,
      cache,
      trustDomain: 'cluster.local',
      log: new RecordingLog().log,
      signal: stop.signal,
    });
    const version = (typeUrl: string, name: string) => cache.resources(typeUrl)?.get(name)?.version ?? assert.fail(name);
    const digest = (name: string, ...authorizations: string[]) =>
      ownPoliciesDigest({
        trafficPolicy: version(typeUrls.trafficPolicy, `local//Pod/${name}`),
        authorizations: new Map(authorizations.map((of) => [of, version(typeUrls.authorization, of)])),
      });
    return { expectedDigest, digest, replace: (...next: string[]) => objects.replace(effective(...next)), stop: () => stop.abort() };
  }

  test('is the TrafficPolicy and every Authorization that holds: the mesh’s, the namespace’s and those that select the pod', () => {
    const { expectedDigest, digest, stop } = control(
      pod('a'),
      pod('b'),
      pod('c', 'bar'),
      deny('mesh', 'istio-system'),
      deny('foo', 'foo'),
      deny('one', 'foo', 'selector: {matchLabels: {app: a}}, '),
    );
    assert.equal(expectedDigest('foo/a'), digest('foo/a', 'istio-system/mesh', 'foo/foo', 'foo/one'));
    assert.equal(expectedDigest('foo/b'), digest('foo/b', 'foo/foo', 'istio-system/mesh'));
    assert.equal(expectedDigest('bar/c'), digest('bar/c', 'istio-system/mesh'));
    assert.equal(expectedDigest('foo/nobody'), undefined);
    stop();
  });

  test('changes with a policy that comes, changes its scope, and goes', () => {
    const { expectedDigest, digest, replace, stop } = control(pod('a'), pod('b'));
    assert.equal(expectedDigest('foo/b'), digest('foo/b'));
    replace(pod('a'), pod('b'), deny('one', 'foo'));
    assert.equal(expectedDigest('foo/b'), digest('foo/b', 'foo/one'));
    replace(pod('a'), pod('b'), deny('one', 'foo', 'selector: {matchLabels: {app: a}}, '));
    assert.equal(expectedDigest('foo/b'), digest('foo/b'));
    assert.equal(expectedDigest('foo/a'), digest('foo/a', 'foo/one'));
    replace(pod('b'));
    assert.deepEqual([expectedDigest('foo/a'), expectedDigest('foo/b')], [undefined, digest('foo/b')]);
    stop();
  });
});

describe('what is held', () => {
  const ID = 'spiffe://cluster.local/ns/foo/sa/a';
  const sidecar = (pod: string, trafficPolicy: string | undefined, ...authorizations: string[]) => {
    const taken = new TakenByStream(ID);
    taken.hear({ node: { id: `sidecar~${pod.replace('/', '~')}` } });
    // Later requests name nobody.
    taken.hear({});
    const policies: [string, string][] = trafficPolicy === undefined ? [] : [['local//Pod/foo/a', trafficPolicy]];
    taken.settled({ typeUrl: typeUrls.trafficPolicy, held: new Map([...policies, ['local//Pod/bar/b', 'theirs']]) });
    taken.settled({ typeUrl: typeUrls.authorization, held: new Map(authorizations.map((name) => [name, `v-${name}`])) });
    return taken;
  };

  test('is told of pods of the sidecar’s own namespace that have a policy, while its stream lasts', () => {
    const held = new ConfirmedPolicies();
    const end = held.follow(sidecar('foo/a', 'v1', 'foo/x'));
    held.follow(sidecar('bar/b', 'v1'));
    held.follow(sidecar('foo/new', undefined));
    held.follow(new TakenByStream(ID));
    const digest = ownPoliciesDigest({ trafficPolicy: 'v1', authorizations: new Map([['foo/x', 'v-foo/x']]) });
    assert.deepEqual(held.all, [{ pod: 'foo/a', reporter: ID, digest }]);
    end();
    assert.deepEqual(held.all, []);
  });

  test('counts by the word of the pod’s own sidecar alone, for as long as its node says so', () => {
    const reports = new NodeReports();
    const [own, other] = [{}, {}];
    reports.connect(own, 'n1');
    reports.connect(other, 'n2');
    const say = (stream: object, reporter: string, digest: string) =>
      reports.report(stream, { node: 'n', report: { peers: [], truncated: false, held: [{ pod: 'foo/a', reporter, digest }] } });
    const holds = () => isUpToDate(reports.heldByPod.get('foo/a') ?? [], { reporter: ID, digest: 'new' });
    say(other, 'spiffe://cluster.local/ns/foo/sa/thief', 'new');
    assert.equal(holds(), false);
    say(own, ID, 'old');
    assert.equal(holds(), false);
    say(own, ID, 'new');
    assert.equal(holds(), true);
    assert.equal(isUpToDate(reports.heldByPod.get('foo/a') ?? [], { reporter: undefined, digest: 'new' }), false);
    reports.end(own);
    assert.equal(holds(), false);
  });
});
