// The second proof on a node of Kubernetes: a token is taken from a process of its own pod alone, by real cgroups and a real agent.

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { HandfastError } from '../../src/errors.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { ForeignStream } from '../support/handed-on-stream.ts';
import { PodCgroup } from '../support/pod-cgroup.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const OWN = '0b1d8c5e-5f0e-4b0e-9a54-6b2f4c1d2e3f';
const OTHER = 'ffffffff-5f0e-4b0e-9a54-6b2f4c1d2e3f';
const REFUSED = 'a process presented the token of a pod that it is not in';

const probe = PodCgroup.create();
const skip = typeof probe === 'string' ? probe : false;
if (typeof probe !== 'string') await probe[Symbol.asyncDispose]();

/** As an API server makes them. */
const tokenOf = (claims: object, signature = 'signed') =>
  [JSON.stringify({ alg: 'RS256', kid: 'a' }), JSON.stringify(claims), signature]
    .map((part) => Buffer.from(part).toString('base64url'))
    .join('.');
const bound = (uid: string) => ({ 'kubernetes.io': { namespace: 'foo', pod: { name: 'sleep', uid } } });

describe('a token and the process that brings it', { skip }, () => {
  let records: RecordingLog;
  let plane: ControlPlane;
  let cgroup: PodCgroup;

  beforeEach(async () => {
    records = new RecordingLog();
    plane = await ControlPlane.create(records.log);
    const made = PodCgroup.create();
    assert.ok(typeof made !== 'string', String(made));
    cgroup = made;
    await plane.startControl();
    await plane.startCa({
      // In the API server's stead.
      prover: () => ({
        prove: async (token) => {
          if (!token.endsWith(Buffer.from('signed').toString('base64url'))) throw new HandfastError('TOKEN_REFUSED', 'not signed');
          return { namespace: 'foo', serviceAccount: 'sleep' };
        },
      }),
    });
    await plane.startAgent({ podCgroups: cgroup.root, rotateEveryMs: 200 });
  });

  afterEach(async () => {
    await plane[Symbol.asyncDispose]();
    await cgroup[Symbol.asyncDispose]();
  });

  async function served(stream: ForeignStream): Promise<void> {
    const deadline = Date.now() + 20_000;
    while (stream.keys < 1) {
      assert.ok(Date.now() < deadline, 'no key');
      await delay(10);
    }
  }

  async function refused(wrap: readonly string[] | undefined, claims: object) {
    await using stream = new ForeignStream(plane.socket('agent'), { token: tokenOf(claims), ...(wrap === undefined ? {} : { wrap }) });
    const record = await records.find(({ msg }) => msg === REFUSED);
    assert.equal(stream.keys, 0);
    return record;
  }

  it('is-taken-in-its-own-pod', async () => {
    await using stream = new ForeignStream(plane.socket('agent'), { token: tokenOf(bound(OWN)), wrap: cgroup.wrap(OWN) });
    await served(stream);
    assert.ok(!records.records.some(({ msg }) => msg === REFUSED));
  });

  it('is-taken-from-below-a-container-too', async () => {
    await using stream = new ForeignStream(plane.socket('agent'), {
      token: tokenOf(bound(OWN)),
      wrap: cgroup.wrap(OWN, `app/pod${OTHER}`),
    });
    await served(stream);
  });

  it('is-refused-in-another-pod', async () => {
    const record = await refused(cgroup.wrap(OTHER), bound(OWN));
    assert.deepEqual([record.pod, record.tokenPod, record.spiffeId], [OTHER, OWN, 'spiffe://cluster.local/ns/foo/sa/sleep']);
  });

  it('is-refused-in-a-container-that-is-called-as-its-pod', async () => {
    const record = await refused(cgroup.wrap(OTHER, `pod${OWN}`), bound(OWN));
    assert.equal(record.pod, OTHER);
  });

  it('is-refused-in-no-pod', async () => {
    const record = await refused(undefined, bound(OWN));
    assert.match(String(record.pod), /^none/);
  });

  it('is-refused-where-it-is-bound-to-none', async () => {
    const record = await refused(cgroup.wrap(OWN), {});
    assert.deepEqual([record.pod, record.tokenPod], [OWN, 'none']);
  });

  it('says-nothing-before-the-ca-has-proven-it', async () => {
    await using stream = new ForeignStream(plane.socket('agent'), { token: tokenOf(bound(OWN), 'forged'), wrap: cgroup.wrap(OWN) });
    await records.find(({ reason }) => typeof reason === 'string' && reason.includes('not signed'));
    assert.equal(stream.keys, 0);
  });
});
