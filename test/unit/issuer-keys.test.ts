// Keys of issuers, fetched by control: had once for all, kept while the issuer is away, gone when nobody names it any more; and what may not be asked.

import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { after, describe, test } from 'node:test';
import { pino } from 'pino';
import { IssuerKeys } from '../../src/control/keys/issuer-keys.ts';
import { inwardUrl, isInward } from '../../src/control/keys/outward-lookup.ts';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import { keysUrlProblem } from '../../src/policy/keys-url.ts';
import { canonicalJwks } from '../../src/spiffe/canonical-jwks.ts';
import { type Answer, JsonServer } from '../support/json-server.ts';

const log = pino({ level: 'silent' });
const jwks = (kid: string) => ({
  keys: [{ ...generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' }), kid }],
});

const objectsWith = (...rules: string[]) =>
  parseObjects([
    {
      name: 'a.yaml',
      text: `apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt, namespace: foo}\nspec: {jwtRules: [${rules.join(', ')}]}\n`,
    },
  ]);
const byUrl = (url: string) => `{issuer: "https://issuer", jwksUri: "${url}"}`;

describe('fetched', () => {
  let answer: (path: string) => Answer = () => ({ body: jwks('a') });
  const closing: (() => unknown)[] = [];
  after(async () => {
    for (const close of closing.reverse()) await close();
  });
  const start = async (refreshMs = 20) => {
    const server = await JsonServer.start(({ path }) => answer(path));
    const stopping = new AbortController();
    closing.push(
      () => server.stop(),
      () => stopping.abort(),
    );
    return { server, keys: new IssuerKeys({ loopback: true, refreshMs, log, signal: stopping.signal }) };
  };
  const until = async (holds: () => boolean) => {
    const deadline = performance.now() + 10_000;
    while (!holds()) {
      assert.ok(performance.now() < deadline, 'in time');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };

  test('from a URL, again and again, and kept while nobody answers', async () => {
    const { server, keys } = await start();
    const url = `${server.origin}/keys`;
    const kid = () => /"kid":"(\w+)"/.exec(keys.keys.current?.get(`url ${url}`) ?? '')?.[1];
    answer = () => ({ body: jwks('a') });
    keys.replace(objectsWith(byUrl(url)));
    await until(() => kid() === 'a');
    answer = () => ({ body: jwks('b') });
    await until(() => kid() === 'b');
    const before = server.asked.length;
    answer = () => ({ status: 503, body: {} });
    await until(() => server.asked.length > before + 1);
    assert.equal(kid(), 'b');
    answer = () => ({ body: { keys: 'none' } });
    const then = server.asked.length;
    await until(() => server.asked.length > then);
    assert.equal(kid(), 'b', 'what is no key set is not had');
    keys.replace(objectsWith());
    await until(() => kid() === undefined);
  });

  test('by the issuer’s own metadata', async () => {
    const { server, keys } = await start(60_000);
    answer = (path) =>
      path.startsWith('/.well-known/') ? { body: { issuer: server.origin, jwks_uri: `${server.origin}/k` } } : { body: jwks('c') };
    keys.replace(objectsWith(`{issuer: "${server.origin}"}`));
    await until(() => keys.keys.current?.get(`issuer ${server.origin}`)?.includes('"c"') === true);
  });

  test('once, for many rules', async () => {
    const { server, keys } = await start(60_000);
    answer = () => ({ body: jwks('d') });
    const url = `${server.origin}/same`;
    keys.replace(objectsWith(byUrl(url), `{issuer: "https://other", jwksUri: "${url}"}`));
    await until(() => keys.keys.current?.has(`url ${url}`) === true);
    assert.equal(server.asked.length, 1);
  });

  test('not from this machine in a cluster', async () => {
    const server = await JsonServer.start(() => ({ body: jwks('e') }));
    const stopping = new AbortController();
    closing.push(
      () => server.stop(),
      () => stopping.abort(),
    );
    const keys = new IssuerKeys({ loopback: false, refreshMs: 20, log, signal: stopping.signal });
    keys.replace(objectsWith(byUrl(`${server.origin}/keys`)));
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(server.asked.length, 0);
    assert.equal(keys.keys.current?.size, 0);
  });
});

test('a literal address is refused, which is never looked up', () => {
  for (const url of ['https://127.0.0.1/', 'https://[::1]/', 'https://169.254.169.254/keys', 'https://[64:ff9b::a9fe:a9fe]/'])
    assert.ok(inwardUrl(new URL(url)), url);
  for (const url of ['https://10.0.0.1/', 'https://issuer.example/']) assert.equal(inwardUrl(new URL(url)), undefined);
});

test('what travels is the keys alone', () => {
  const { keys } = jwks('a');
  const text = JSON.stringify({
    keys: [
      { ...keys[0], x5c: ['x'.repeat(10_000)] },
      { kty: 'OKP', crv: 'Ed25519', x: 'AA', kid: 'b' },
    ],
    more: 'y'.repeat(10_000),
  });
  assert.deepEqual(Object.keys(JSON.parse(canonicalJwks(text)).keys[0]).sort(), ['crv', 'kid', 'kty', 'x', 'y']);
  assert.equal(JSON.parse(canonicalJwks(text)).keys.length, 1);
  assert.throws(() => canonicalJwks('{"keys":[]}'), { code: 'JWT_INVALID' });
});

test('nobody waits for another namespace’s issuers', async () => {
  const silent = await JsonServer.start(() => ({ hang: true }));
  const good = await JsonServer.start(() => ({ body: jwks('z') }));
  const stopping = new AbortController();
  const keys = new IssuerKeys({ loopback: true, refreshMs: 60_000, log, signal: stopping.signal });
  const of = (namespace: string, urls: string[]) =>
    `apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt, namespace: ${namespace}}\nspec: {jwtRules: [${urls.map(byUrl).join(', ')}]}\n`;
  const url = `${good.origin}/keys`;
  keys.replace(
    parseObjects([
      {
        name: 'a.yaml',
        text: `${of(
          'a',
          Array.from({ length: 90 }, (_, n) => `${silent.origin}/${n}`),
        )}---\n${of('z', [url])}`,
      },
    ]),
  );
  const deadline = performance.now() + 4_000;
  while (keys.keys.current?.has(`url ${url}`) !== true) {
    assert.ok(performance.now() < deadline, 'before the first silent one is given up');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  stopping.abort();
  await Promise.all([silent.stop(), good.stop()]);
});

describe('may not be asked', () => {
  for (const url of [
    'http://issuer/keys',
    'ftp://issuer',
    'file:///etc/passwd',
    'https://u:p@issuer',
    'https://issuer/#a',
    'issuer',
    'http://localhost.evil/',
  ])
    test(url, () => assert.ok(keysUrlProblem(url)));
  for (const url of ['https://issuer/keys?a=b', 'http://localhost:1/keys', 'http://127.0.0.1/keys', 'http://[::1]:8/keys'])
    test(`${url} may`, () => assert.equal(keysUrlProblem(url), undefined));
  for (const address of [
    '169.254.169.254',
    '127.0.0.1',
    '0.0.0.0',
    '::1',
    'fe80::1',
    '::',
    '::ffff:169.254.169.254',
    '224.0.0.1',
    'fd00:ec2::254',
    '64:ff9b::a9fe:a9fe',
    '::127.0.0.1',
    '100.100.100.200',
    '192.0.0.192',
  ])
    test(`at ${address}`, () => assert.ok(isInward({ address, family: address.includes(':') ? 6 : 4 })));
  for (const address of ['10.0.0.1', '192.168.1.1', '93.184.216.34', '2001:db8::1', 'fd00::1'])
    test(`at ${address} may`, () => assert.ok(!isInward({ address, family: address.includes(':') ? 6 : 4 })));
});
