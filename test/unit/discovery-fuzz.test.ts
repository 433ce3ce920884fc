// Random and broken bytes where secrets and lists are expected: refused with an error, never a crash, never a hang, and nothing in force changes.

import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { IdentitySource } from '../../src/discovery/identity-source.ts';
import { RevocationSource } from '../../src/discovery/revocation-source.ts';
import { bundleSecret, certificateSecret, crlSecret, genericSecret, validatorSecret } from '../../src/discovery/secret-writer.ts';
import { NodeTrustSource } from '../../src/node/node-trust-source.ts';
import { Snapshot } from '../../src/snapshot.ts';
import type { RevocationList } from '../../src/spiffe/crl.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { pemBlocks } from '../../src/spiffe/pem.ts';
import { clientContext } from '../../src/tls/context.ts';
import { Secret } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import { DiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { TestCa } from '../support/pki.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const SEED = Number(process.env.FUZZ_SEED ?? Date.now() % 1_000_000);
const FOR_MS = 600;
const MAX_ONE_MS = 2_000;
const ID = 'spiffe://cluster.local/ns/foo/sa/sleep';
const { log } = new RecordingLog();

let ca: TestCa;
let identity: Identity;
let samples: Secret[];

/** mulberry32: small, and the same everywhere. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

before(async () => {
  ca = await TestCa.create();
  identity = await ca.identity(ID);
  samples = [
    certificateSecret('default', identity.svid),
    bundleSecret('ROOTCA', identity.bundles.own.pem),
    validatorSecret('ROOTCA', identity.bundles.all),
    crlSecret(await ca.crl(['spiffe://cluster.local/ns/foo/sa/thief'])),
    genericSecret('JWKS', '{"keys":[]}'),
  ];
});

/** A good message with a few bytes changed, cut, doubled or made up. */
function broken(next: (below: number) => number): Uint8Array {
  if (next(20) === 0) return Buffer.from(Array.from({ length: next(400) }, () => next(256)));
  const sample = samples[next(samples.length)];
  const bytes = Buffer.from(sample === undefined ? [] : Secret.encode(sample).finish());
  for (let changes = next(4); changes >= 0; changes--)
    bytes[next(Math.max(1, bytes.length))] = next(3) === 0 ? ([0, 0xff, 0x80][next(3)] ?? 0) : next(256);
  switch (next(4)) {
    case 0:
      return bytes.subarray(0, next(bytes.length + 1));
    case 1:
      return Buffer.concat([bytes, bytes.subarray(next(bytes.length))]);
    default:
      return bytes;
  }
}

/** What is broken must be refused, or leave what is in force as good as it was; each by an error, and soon. */
function fuzz(take: (bytes: Uint8Array) => void, check: () => void): void {
  const next = random(SEED);
  const end = performance.now() + FOR_MS;
  let rounds = 0;
  for (; performance.now() < end; rounds++) {
    const bytes = broken(next);
    const started = performance.now();
    try {
      take(bytes);
    } catch (error) {
      assert.ok(error instanceof Error, `seed ${SEED}, round ${rounds}`);
      // A mistake of ours, not of the message's.
      assert.ok(!(error instanceof TypeError) && !(error instanceof ReferenceError), `seed ${SEED}, round ${rounds}: ${error.stack}`);
      const took = performance.now() - started;
      assert.ok(took < MAX_ONE_MS, `seed ${SEED}, round ${rounds}: ${took} ms`);
      try {
        check();
      } catch (cause) {
        throw new Error(`seed ${SEED}, round ${rounds}: changed in spite of: ${error.message}`, { cause });
      }
    }
  }
  console.log(`# ${rounds} rounds, seed ${SEED}`);
}

const secretsOf = (bytes: Uint8Array) => [Secret.decode(bytes)];
const quiet = { info: () => undefined, warn: () => undefined };

describe('broken secrets', () => {
  it('never-take-the-place-of-a-good-identity-when-refused', () => {
    const snapshot = new Snapshot<Identity>();
    const source = new IdentitySource({ identity: snapshot, prove: clientContext, log: quiet, now: Date.now });
    source.accept(samples.slice(0, 2));
    let good = snapshot.current;
    assert.ok(good);
    fuzz(
      (bytes) => {
        good = snapshot.current;
        const secrets = secretsOf(bytes);
        source.accept(secrets);
      },
      () => assert.equal(snapshot.current, good),
    );
    assert.equal(snapshot.current?.svid.id.uri, ID);
  });

  it('never-take-the-place-of-a-good-list-when-refused', () => {
    const revocations = new Snapshot<RevocationList>();
    const source = new RevocationSource({ name: 'CRL', revocations, identity: new Snapshot(identity), log: quiet });
    source.accept(samples.slice(3, 4));
    let good = revocations.current;
    fuzz(
      (bytes) => {
        good = revocations.current;
        const secrets = secretsOf(bytes);
        source.accept(secrets);
      },
      () => assert.equal(revocations.current, good),
    );
  });

  it('never-change-what-a-node-trusts-when-refused', () => {
    const source = new NodeTrustSource({ trustDomain: 'cluster.local', caKind: 'handfast', log });
    source.acceptTrust(samples.slice(1, 2));
    let good = source.trust.current;
    fuzz(
      (bytes) => {
        good = source.trust.current;
        const secrets = secretsOf(bytes);
        if (secrets[0]?.name === 'CRL') source.acceptRevocations(secrets);
        else source.acceptTrust(secrets);
      },
      () => assert.equal(source.trust.current, good),
    );
  });

  it('in-whole-responses', () => {
    const snapshot = new Snapshot<Identity>();
    const source = new IdentitySource({ identity: snapshot, prove: clientContext, log: quiet, now: Date.now });
    source.accept(samples.slice(0, 2));
    let good = snapshot.current;
    const next = random(SEED + 1);
    fuzz(
      (bytes) => {
        good = snapshot.current;
        const typeUrl = 'type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret';
        const response = Buffer.from(
          DiscoveryResponse.encode({ versionInfo: '1', typeUrl, nonce: '1', resources: [{ typeUrl, value: Buffer.from(bytes) }] }).finish(),
        );
        response[next(response.length)] = next(256);
        const { resources } = DiscoveryResponse.decode(next(2) === 0 ? response : response.subarray(0, next(response.length)));
        source.accept(resources.map(({ value }) => Secret.decode(value)));
      },
      () => assert.equal(snapshot.current, good),
    );
  });
});

describe('PEM', () => {
  it('is-read-in-a-moment-however-many-blocks-have-no-end', () => {
    for (const hostile of [
      '-----BEGIN A-----'.repeat(200_000),
      Array.from({ length: 200_000 }, (_, index) => `-----BEGIN A${index}-----`).join(''),
    ]) {
      const started = performance.now();
      assert.deepEqual(pemBlocks(hostile), []);
      assert.ok(performance.now() - started < MAX_ONE_MS);
    }
  });

  it('a-block-reaches-to-the-next-end-of-its-label', () => {
    const block = (label: string, body: string) => `-----BEGIN ${label}-----\n${body}\n-----END ${label}-----\n`;
    const text = `noise ${block('A', '1')}-----BEGIN B-----\n${block('C', '2')}-----END A-----\n${block('A', `3\n${block('B', '4')}`)}`;
    assert.deepEqual(
      pemBlocks(text).map(({ label }) => label),
      ['A', 'B'],
    );
    assert.deepEqual(pemBlocks(''), []);
  });
});
