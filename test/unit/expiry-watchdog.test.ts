// A rotation that silently stopped is noticed, said and said again, long before the certificate dies; and nothing is said while all is well.

import assert from 'node:assert/strict';
import { afterEach, before, beforeEach, describe, it, mock } from 'node:test';
import { watchExpiry } from '../../src/discovery/expiry-watchdog.ts';
import { Snapshot } from '../../src/snapshot.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { TestCa } from '../support/pki.ts';

const ID = 'spiffe://cluster.local/ns/foo/sa/sleep';
const START = Date.UTC(2030, 0, 1);
const MINUTE = 60_000;
const LIFE = 24 * MINUTE;

let ca: TestCa;
let identity: Snapshot<Identity>;
interface Said {
  readonly level: 'warn' | 'error';
  readonly fields: object;
}
let said: Said[];
const nth = (index: number): Said | undefined => said[index];
let stop: AbortController;

before(async () => {
  ca = await TestCa.create();
});

beforeEach(() => {
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: START });
  identity = new Snapshot<Identity>();
  said = [];
  stop = new AbortController();
});

afterEach(() => {
  stop.abort();
  mock.timers.reset();
});

const watch = () => {
  const note = (level: 'warn' | 'error') => (fields: object) => said.push({ level, fields });
  return watchExpiry({ identity, log: { warn: note('warn'), error: note('error') }, now: Date.now, signal: stop.signal });
};
/** A certificate of the moment, dated back by a minute as the CA does. */
const certificate = (life: number) => ca.identity(ID, { notBefore: Date.now() - MINUTE, notAfter: Date.now() + life });
const pass = (minutes: number) => {
  for (let seconds = 0; seconds < minutes * 60; seconds++) mock.timers.tick(1_000);
};

describe('a certificate that is not renewed', () => {
  it('is-warned-of-at-two-thirds-and-an-error-from-five-sixths-and-again-at-each-step', async () => {
    identity.replace(await certificate(LIFE));
    const watchdog = watch();
    pass(15.9);
    assert.deepEqual(said, []);
    assert.equal(watchdog.warning(), undefined);
    pass(0.4);
    assert.deepEqual(
      said.map(({ level }) => level),
      ['warn'],
    );
    assert.match(watchdog.warning() ?? '', /not been renewed: 68 % of its time is over, it dies in \d+ s/);
    pass(3.6);
    assert.ok(said.every(({ level }) => level === 'warn'));
    assert.ok(said.length >= 3 && said.length <= 5, `${said.length} times between two thirds and five sixths`);
    const warned = said.length;
    pass(0.4);
    assert.equal(nth(warned)?.level, 'error', 'from five sixths on, at once');
    pass(3.5);
    assert.ok(said.length - warned >= 3, 'said again until it dies');
    assert.deepEqual(Object.keys(nth(warned)?.fields ?? {}), ['spiffeId', 'serial', 'usedOfLife', 'diesInS']);
  });

  it('after-its-death-says-so', async () => {
    identity.replace(await certificate(LIFE));
    const watchdog = watch();
    pass(25);
    assert.match(watchdog.warning() ?? '', /it died 60 s ago/);
    assert.equal(said.at(-1)?.level, 'error');
  });

  it('the-next-certificate-ends-it-and-is-watched-itself', async () => {
    identity.replace(await certificate(LIFE));
    const watchdog = watch();
    pass(17);
    assert.notEqual(watchdog.warning(), undefined);
    identity.replace(await certificate(LIFE));
    const before = said.length;
    assert.equal(watchdog.warning(), undefined);
    pass(15.5);
    assert.equal(said.length, before);
    pass(1);
    assert.equal(said.length, before + 1);
  });

  it('a-new-bundle-is-no-renewal', async () => {
    const first = await certificate(LIFE);
    identity.replace(first);
    watch();
    pass(12);
    identity.replace({ ...first });
    pass(4.5);
    assert.equal(said.length, 1);
  });
});

describe('nothing is said', () => {
  it('of-a-short-certificate-that-was-dated-back', async () => {
    const watchdog = watch();
    identity.replace(await certificate(20_000));
    assert.equal(watchdog.warning(), undefined);
    mock.timers.tick(13_000);
    assert.deepEqual(said, []);
    for (let i = 0; i < 10; i++) mock.timers.tick(100);
    assert.equal(said.length, 1);
  });

  it('while-certificates-are-renewed-at-half-life', async () => {
    identity.replace(await certificate(LIFE));
    const watchdog = watch();
    for (let i = 0; i < 6; i++) {
      pass(12);
      identity.replace(await certificate(LIFE));
      assert.equal(watchdog.warning(), undefined);
    }
    assert.deepEqual(said, []);
  });

  it('before-the-first-certificate-nor-after-the-end', async () => {
    const watchdog = watch();
    pass(60);
    assert.equal(watchdog.warning(), undefined);
    identity.replace(await certificate(LIFE));
    stop.abort();
    pass(24);
    assert.deepEqual(said, []);
  });
});
