// strict-check, policy replay and ledger as they are typed: their exit codes, and what they print of what others have said.

import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { explainRoute } from '../../src/control/explain/explain-route.ts';
import { type LedgerRouteDeps, ledgerRoutes } from '../../src/control/ledger/ledger-routes.ts';
import { MeshLedger } from '../../src/control/ledger/mesh-ledger.ts';
import { registeredIds } from '../../src/control/ledger/registered-ids.ts';
import type { MeshObjects } from '../../src/control/objects/mesh-objects.ts';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import type { Selections } from '../../src/policy/policy-object.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { serveOperators } from '../../src/wire/operator-server.ts';
import { handfast } from '../support/handfast.ts';
import { entry, HOUR, mtls, report, SLEEP, T0 } from '../support/ledger-records.ts';

const PODS = `
apiVersion: v1
kind: Pod
metadata: {name: httpbin-1, namespace: bar, labels: {app: httpbin, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: httpbin}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: old, namespace: bar, labels: {security.istio.io/tlsMode: istio}}
status: {phase: Succeeded}
---
apiVersion: v1
kind: Pod
metadata: {name: evicted, namespace: bar, labels: {app: httpbin, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: httpbin}
status: {phase: Failed}
`;
const STRICT = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: bar}
spec: {mtls: {mode: STRICT}}
`;

let dir: string;
let ledger: MeshLedger;
let close: () => Promise<void>;
const source = { objects: new Snapshot<MeshObjects>() };

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-ledger-commands-'));
  source.objects.replace(parseObjects([{ name: 'pods.yaml', text: PODS }]));
  const now = () => T0 + HOUR;
  const selections = new Snapshot<Selections>(new Map());
  // Each test begins a ledger anew.
  const current: LedgerRouteDeps['ledger'] = {
    get instances() {
      return ledger.instances;
    },
    isBelieved: (run) => ledger.isBelieved(run),
  };
  const mesh = { source, trustDomain: 'cluster.local', selections };
  const routes = [explainRoute(mesh), ...ledgerRoutes({ ...mesh, ledger: current, now })];
  ({ close } = await serveOperators({ path: join(dir, 'control-operator.sock'), takeOver: false, routes }));
});

after(async () => {
  await close();
  await rm(dir, { recursive: true });
});

beforeEach(() => {
  ledger = new MeshLedger({ now: () => T0, registeredId: registeredIds(source, 'cluster.local') });
});

const say = (entries: Parameters<typeof report>[0]) => ledger.take({}, { node: 'local', report: report(entries) });
const ask = (...args: string[]) => handfast(...args, '--run-dir', dir);

async function file(name: string, text: string): Promise<string> {
  await writeFile(join(dir, name), text);
  return join(dir, name);
}

describe('strict-check', () => {
  it('exits-with-0-when-safe-and-says-of-what', async () => {
    say({ entries: [mtls()] });
    const { code, stdout, stderr } = await ask('strict-check', '-n', 'bar', 'httpbin-1');
    assert.equal(code, 0, stderr);
    assert.equal(stdout, 'pod httpbin-1, 1 pods: safe\n');
  });

  it('exits-with-1-when-somebody-would-break-and-says-who', async () => {
    say({ entries: [mtls(), entry({ connections: 12, open: 3, tripwire: true })] });
    const { code, stdout } = await ask('strict-check', '-n', 'bar');
    assert.equal(code, 1);
    assert.match(stdout, /^namespace bar, 1 pods: would break\n/);
    assert.match(
      stdout,
      /foo\/sleep +spiffe:\S+\/sleep +bar\/httpbin-1 +8080 +plaintext +12 +3 +2026-01-01T00:00:00Z .*has spoken mTLS before/,
    );
    const json = await ask('strict-check', '-n', 'bar', '-o', 'json');
    assert.deepEqual([json.code, JSON.parse(json.stdout).offenders[0].clientId], [1, SLEEP]);
    const later = await ask('strict-check', '-n', 'bar', '--since', '10m');
    assert.equal(later.code, 1, 'it is open');
  });

  it('exits-with-2-for-a-question-that-has-no-answer', async () => {
    for (const args of [
      [],
      ['-n', 'nowhere'],
      ['-n', 'bar', 'nobody'],
      ['-n', 'bar', 'old'],
      ['-n', 'bar', '--min-observed', 'long'],
      ['-n', 'bar', 'a', 'b'],
    ]) {
      const { code, stderr } = await ask('strict-check', ...args);
      assert.equal(code, 2, stderr);
    }
  });

  it('takes-the-namespace-with-the-name-too', async () => {
    say({ entries: [mtls()] });
    for (const args of [['bar/httpbin-1'], ['bar/httpbin-1', '-n', 'bar'], ['pod/httpbin-1', '-n', 'bar']]) {
      const { code, stdout, stderr } = await ask('strict-check', ...args);
      assert.deepEqual([code, stdout.split(',')[0]], [0, args[0]?.startsWith('pod/') ? 'pod pod/httpbin-1' : 'pod httpbin-1'], stderr);
    }
    for (const args of [['bar/httpbin-1', '-n', 'foo'], ['pod/httpbin-1'], ['httpbin-1'], ['bar/'], ['/httpbin-1'], ['bar/pod/x']])
      assert.equal((await ask('strict-check', ...args)).code, 2, args.join(' '));
  });

  it('exits-with-3-when-there-is-nobody-to-ask', async () => {
    const { code, stderr } = await handfast('strict-check', '-n', 'bar', '--run-dir', join(dir, 'nowhere'));
    assert.deepEqual([code, /is the process running/.test(stderr)], [3, true], stderr);
  });

  it('counts-whom-a-pod-has-seen-that-has-ended-but-is-an-object-still', async () => {
    say({ entries: [mtls()] });
    say({ pod: 'bar/evicted', entries: [mtls()], ended: true });
    assert.equal((await ask('strict-check', '-n', 'bar')).code, 0);
    say({ pod: 'bar/evicted', entries: [entry()], ended: true });
    const { code, stdout } = await ask('strict-check', '-n', 'bar');
    assert.equal(code, 1);
    assert.match(stdout, /bar\/evicted \(gone\)/);
  });

  it('exits-with-3-when-not-enough-was-observed', async () => {
    const silent = await ask('strict-check', '-n', 'bar');
    assert.deepEqual([silent.code, /not reporting +bar\/httpbin-1/.test(silent.stdout)], [3, true]);
    say({ observedSince: T0, entries: [mtls()] });
    assert.equal((await ask('strict-check', '-n', 'bar', '--min-observed', '2h')).code, 3);
    assert.equal((await ask('strict-check', '-n', 'bar')).code, 0);
  });
});

describe('policy replay', () => {
  it('exits-with-0-when-nothing-changes-with-1-when-somebody-would-be-refused', async () => {
    // Larger than what operators' other requests may be.
    const proposed = await file('strict.yaml', `${'# a comment\n'.repeat(10_000)}${STRICT}`);
    say({ entries: [mtls()] });
    const same = await ask('policy', 'replay', '-f', proposed);
    assert.equal(same.code, 0, same.stderr);
    assert.match(same.stdout, /1 recorded kinds of connections were judged: nothing changes/);
    say({ entries: [mtls(), entry()] });
    const other = await ask('policy', 'replay', '-f', proposed);
    assert.equal(other.code, 1, other.stderr);
    assert.match(
      other.stdout,
      /would refuse +foo\/sleep .* PLAINTEXT_UNDER_STRICT +plaintext refused: STRICT by PeerAuthentication bar\/strict/,
    );
  });

  it('exits-with-2-for-a-file-that-is-wrong-and-says-where', async () => {
    const wrong = await file('wrong.yaml', STRICT.replace('STRICT', 'STRIKT'));
    const { code, stderr } = await ask('policy', 'replay', '-f', await file('strict.yaml', STRICT), '-f', wrong);
    assert.equal(code, 2);
    assert.match(stderr, /wrong\.yaml:5: .*STRIKT/);
    for (const args of [['replay'], ['replay', '-f', join(dir, 'nowhere')], ['rewind']])
      assert.equal((await ask('policy', ...args)).code, 2);
  });

  it('exits-with-3-when-nobody-would-be-refused-but-not-everything-was-judged-and-says-why', async () => {
    const proposed = await file('strict.yaml', STRICT);
    say({ entries: [mtls()] });
    say({ pod: 'bar/made-up', entries: [entry()] });
    const unbelieved = await ask('policy', 'replay', '-f', proposed);
    assert.deepEqual(
      [unbelieved.code, /1 were not judged: not reported by the sidecar/.test(unbelieved.stdout)],
      [3, true],
      unbelieved.stdout,
    );
    ledger = new MeshLedger({ now: () => T0, registeredId: (pod) => `spiffe://cluster.local/ns/bar/sa/${pod.slice('bar/'.length)}` });
    say({ reporter: 'spiffe://cluster.local/ns/bar/sa/httpbin', pod: 'bar/httpbin', entries: [mtls()] });
    say({ reporter: 'spiffe://cluster.local/ns/bar/sa/gone', pod: 'bar/gone', entries: [entry()] });
    const gone = await ask('policy', 'replay', '-f', proposed);
    assert.deepEqual([gone.code, /1 were not judged: of pods that are gone/.test(gone.stdout)], [3, true], gone.stdout);
    ledger = new MeshLedger({ now: () => T0, registeredId: registeredIds(source, 'cluster.local') });
    say({ entries: [mtls()], dropped: 2 });
    const missing = await ask('policy', 'replay', '-f', proposed);
    assert.deepEqual([missing.code, /2 connections found no room/.test(missing.stdout)], [3, true], missing.stdout);
    say({ entries: [mtls(), entry()] });
    assert.equal((await ask('policy', 'replay', '-f', proposed)).code, 1);
  });

  it('reads-each-file-of-a-directory-and-no-directories-in-it', async () => {
    const proposed = await mkdtemp(join(dir, 'proposed-'));
    const replayed = () => ask('policy', 'replay', '-f', proposed);
    await writeFile(join(proposed, 'README.md'), 'no object');
    const empty = await replayed();
    assert.deepEqual([empty.code, /no \.yaml, \.yml or \.json file/.test(empty.stderr)], [2, true], empty.stderr);
    say({ entries: [entry()] });
    await writeFile(join(proposed, 'strict.yml'), STRICT);
    assert.equal((await replayed()).code, 1);
    await writeFile(join(proposed, 'wrong.json'), '{"kind": 1}');
    const wrong = await replayed();
    assert.deepEqual([wrong.code, /wrong\.json/.test(wrong.stderr)], [2, true], wrong.stderr);
    await mkdir(join(proposed, 'more'));
    const nested = await replayed();
    assert.deepEqual([nested.code, /name each that is meant: -f \S+more/.test(nested.stderr)], [2, true], nested.stderr);
  });

  it('says-what-it-is-for', async () => {
    const { code, stdout } = await handfast('policy', '--help');
    assert.equal(code, 0);
    assert.match(stdout, /usage: handfast policy VERB[\s\S]*replay -f FILE[\s\S]*judges every recorded connection/);
  });

  it('exits-with-3-when-nothing-was-observed-and-says-that', async () => {
    const { code, stdout } = await ask('policy', 'replay', '-f', await file('strict.yaml', STRICT));
    assert.deepEqual([code, stdout], [3, 'nothing was observed that could be judged\n']);
  });

  it('exits-with-3-when-there-is-nobody-to-ask', async () => {
    const proposed = await file('strict.yaml', STRICT);
    const { code, stderr } = await handfast('policy', 'replay', '-f', proposed, '--run-dir', join(dir, 'nowhere'));
    assert.deepEqual([code, /is the process running/.test(stderr)], [3, true], stderr);
  });

  it('judges-a-rollout-as-if-it-had-come-to-everybody-and-says-so', async () => {
    const scoped = (rollout: string) => `
apiVersion: handfast.io/v1alpha1
kind: ScopeConfig
metadata: {name: canary, namespace: bar}
spec:
  object: {kind: PeerAuthentication, apiVersion: security.istio.io/v1, metadata: {name: strict}, spec: {mtls: {mode: STRICT}}}
${rollout}`;
    say({ entries: [entry()] });
    const whole = await ask('policy', 'replay', '-f', await file('scoped.yaml', scoped('')));
    const rollout = '  rollout: {steps: [{pods: 1}, {percent: 100}], intervalSeconds: 60}\n';
    const slowly = await ask('policy', 'replay', '-f', await file('scoped.yaml', scoped(rollout)));
    assert.deepEqual([whole.code, slowly.code], [1, 1], `${whole.stderr}${slowly.stderr}`);
    const said = /ScopeConfig bar\/canary was judged as if its rollout had come to everybody/;
    assert.deepEqual([said.test(whole.stdout), said.test(slowly.stdout)], [false, true]);
  });
});

describe('explain', () => {
  it('takes-the-namespace-with-the-name-or-by-itself', async () => {
    for (const args of [['bar/httpbin-1'], ['httpbin-1', '-n', 'bar'], ['bar/httpbin-1', '-n', 'bar']]) {
      const { code, stdout, stderr } = await ask('explain', ...args);
      assert.equal(code, 0, stderr);
      assert.match(stdout, /^pod: bar\/httpbin-1, /);
    }
  });

  it('takes-no-two-namespaces-and-no-name-of-three-parts', async () => {
    for (const args of [['bar/httpbin-1', '-n', 'foo'], ['bar/httpbin-1/x'], ['/httpbin-1'], ['bar/'], ['httpbin-1']]) {
      const { code, stderr } = await ask('explain', ...args);
      assert.equal(code, 2, stderr);
    }
  });
});

describe('ledger', () => {
  it('prints-tripwires-first-and-strangers-apart', async () => {
    say({ entries: [mtls({ service: '' }), entry({ tripwire: true })] });
    say({ reporter: SLEEP, dropped: 3 });
    const { code, stdout } = await ask('ledger', '-n', 'bar');
    assert.equal(code, 0);
    assert.match(stdout, /^TRIPWIRE .*\nfoo\/sleep +10\.0\.0\.1/);
    assert.match(stdout, /bar\/httpbin-1 +from +foo\/sleep +spiffe:\S+ +8080 +mtls +allowed/);
    assert.match(stdout, /NOT BELIEVED: POD .*\nbar\/httpbin-1 +spiffe:\S+\/sleep +local/);
    assert.match(stdout, /INCOMPLETE: POD .*\nbar\/httpbin-1 +3 +0/);
    const json = JSON.parse((await ask('ledger', '-o', 'json')).stdout);
    assert.deepEqual([json.events.length, json.instances.length], [1, 2]);
    assert.equal((await ask('ledger', '-n', 'elsewhere')).stdout, 'no sidecar has reported anything\n');
  });

  it('obeys-nothing-that-a-sidecar-has-said', async () => {
    say({ pod: 'bar/\u001b[2Jx', entries: [entry({ peerWorkload: 'foo/\u001b]0;x\u0007' })] });
    for (const output of ['text', 'json']) {
      const { code, stdout } = await ask('ledger', '-o', output);
      assert.equal(code, 0);
      assert.ok(!stdout.includes('\u001b') && !stdout.includes('\u0007'));
    }
  });
});
