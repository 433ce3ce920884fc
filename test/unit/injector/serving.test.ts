// The webhook's certificate: made once however many replicas there are, renewed in time, shown only when API servers can verify it.

import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { beforeEach, describe, test } from 'node:test';
import { ServingCertificate } from '../../../src/injector/serving-certificate.ts';
import {
  caBundleOf,
  LIFETIMES,
  makeServing,
  readServing,
  type ServingMaterial,
  secretData,
} from '../../../src/injector/serving-material.ts';
import { ServingSecret } from '../../../src/injector/serving-secret.ts';
import { putCaBundle } from '../../../src/injector/webhook-configuration.ts';
import { logInto } from '../../../src/observe/log.ts';
import { isJsonObject } from '../../../src/spiffe/strict-json.ts';
import { refusal } from '../../support/refusal.ts';
import { FakeKubeApi } from './fake-kube-api.ts';

const DNS_NAMES = ['handfast-injector.handfast-system.svc', 'handfast-injector.handfast-system.svc.cluster.local'];
const SECRET = '/api/v1/namespaces/handfast-system/secrets/handfast-injector-tls';
const CONFIGURATION = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/handfast-injector';

let api: FakeKubeApi;
let now: number;
let said: string[];
let secret: ServingSecret;
let log: ReturnType<typeof logInto>;

beforeEach(() => {
  api = new FakeKubeApi();
  now = Date.UTC(2026, 0, 1);
  said = [];
  log = logInto({ write: (line) => void said.push(String(JSON.parse(line).msg)) }, { level: 'info', base: {} });
  secret = secretOf();
});

function secretOf(dnsNames = DNS_NAMES): ServingSecret {
  return new ServingSecret({ api, namespace: 'handfast-system', name: 'handfast-injector-tls', dnsNames, log, now: () => now });
}

function certificateOf(of = secret): ServingCertificate {
  return new ServingCertificate({ api, secret: of, webhookConfiguration: 'handfast-injector', log, now: () => now });
}

function configure(): void {
  api.put(CONFIGURATION, {
    metadata: { name: 'handfast-injector' },
    webhooks: [
      { name: 'namespace.handfast.io', clientConfig: { service: { name: 'handfast-injector' } } },
      { name: 'object.handfast.io', clientConfig: {} },
    ],
  });
}

/** The bundles of all webhooks, PEM. */
function bundles(): string[] {
  const webhooks = api.objects.get(CONFIGURATION)?.webhooks;
  return (Array.isArray(webhooks) ? webhooks : []).map((webhook: { clientConfig: { caBundle?: string } }) =>
    Buffer.from(webhook.clientConfig.caBundle ?? '', 'base64').toString(),
  );
}

function dataOfSecret(): Readonly<Record<string, unknown>> {
  const data = api.objects.get(SECRET)?.data;
  assert.ok(isJsonObject(data));
  return data;
}

describe('the Secret', () => {
  test('is-made-where-there-is-none-with-what-an-api-server-wants-of-a-certificate', async () => {
    const { certificate, caCertificate } = await secret.current();
    const [leaf, ca] = [new X509Certificate(certificate), new X509Certificate(caCertificate)];
    assert.ok(leaf.verify(ca.publicKey) && leaf.checkIssued(ca) && ca.verify(ca.publicKey));
    assert.ok(ca.ca && !leaf.ca);
    assert.equal(leaf.subjectAltName, DNS_NAMES.map((name) => `DNS:${name}`).join(', '));
    assert.deepEqual(leaf.keyUsage, ['1.3.6.1.5.5.7.3.1']);
    assert.deepEqual(Object.keys(dataOfSecret()).sort(), ['ca.crt', 'ca.key', 'tls.crt', 'tls.key']);
  });

  test('is-read-and-left-alone-while-nothing-is-due', async () => {
    const made = await secret.current();
    const before = api.objects.get(SECRET);
    now += LIFETIMES.leafMs / 2;
    assert.deepEqual(await secretOf().current(), made);
    assert.equal(api.objects.get(SECRET), before);
  });

  test('made-by-two-at-once-is-the-same-for-both', async () => {
    const both = await Promise.all([secretOf().current(), secretOf().current(), secretOf().current()]);
    assert.deepEqual(new Set(both.map(({ certificate }) => certificate)).size, 1);
    assert.deepEqual(readServing(dataOfSecret()), both[0]);
  });

  for (const [name, spoil] of [
    ['gone', () => api.objects.delete(SECRET)],
    ['broken', () => api.put(SECRET, { data: {} })],
  ] as const)
    test(`${name}-while-it-is-served-is-made-anew-and-no-replica-is-cut-off`, async () => {
      configure();
      const replicas = [certificateOf(secretOf()), certificateOf(secretOf())] as const;
      for (const replica of [...replicas, ...replicas]) await replica.look();
      const isTrusted = (replica: ServingCertificate) => {
        const authorities = (bundles()[0] ?? '').split(/(?<=-----END CERTIFICATE-----\n)/).filter((pem) => pem !== '');
        const leaf = new X509Certificate(replica.shown?.certificate ?? '');
        return authorities.some((pem) => leaf.verify(new X509Certificate(pem).publicKey));
      };
      const before = replicas[0].shown?.caCertificate;
      spoil();
      for (const replica of [replicas[0], replicas[0], replicas[1], replicas[1]]) {
        await replica.look();
        assert.deepEqual(replicas.map(isTrusted), [true, true]);
      }
      assert.notEqual(replicas[1].shown?.caCertificate, before);
      assert.equal(replicas[0].shown?.certificate, replicas[1].shown?.certificate);
    });

  test('keeps-its-authority-when-the-certificate-is-renewed', async () => {
    const made = await secret.current();
    now += (LIFETIMES.leafMs * 2) / 3 + 60_000;
    const renewed = await secret.current();
    assert.notEqual(renewed.certificate, made.certificate);
    assert.notEqual(renewed.key, made.key);
    assert.equal(renewed.caCertificate, made.caCertificate);
  });

  test('keeps-the-former-authority-beside-a-new-one-until-it-has-ended', async () => {
    const made = await secret.current();
    now += (LIFETIMES.caMs * 2) / 3 + 60_000;
    const renewed = await secret.current();
    assert.notEqual(renewed.caCertificate, made.caCertificate);
    assert.equal(renewed.previousCa, made.caCertificate);
    assert.equal(caBundleOf(renewed, now), renewed.caCertificate + made.caCertificate);
    now += LIFETIMES.caMs / 3;
    const later = await secret.current();
    assert.equal(caBundleOf(later, now), later.caCertificate);
    assert.equal('previous-ca.crt' in secretData(later, now), false);
  });

  test('renewed-by-somebody-else-meanwhile-is-taken-from-there', async () => {
    const made = await secret.current();
    now += (LIFETIMES.leafMs * 2) / 3 + 60_000;
    const theirs = await makeServing({ dnsNames: DNS_NAMES, now, lifetimes: LIFETIMES });
    api.beforeWrite = () => api.put(SECRET, { metadata: { name: 'handfast-injector-tls' }, data: secretData(theirs, now) });
    const taken = await secret.current();
    assert.equal(taken.certificate, theirs.certificate);
    assert.notEqual(taken.certificate, made.certificate);
  });

  test('removed-while-it-is-renewed-is-made-again', async () => {
    await secret.current();
    now += (LIFETIMES.leafMs * 2) / 3 + 60_000;
    api.beforeWrite = () => api.objects.delete(SECRET);
    const made = await secret.current();
    assert.deepEqual(readServing(dataOfSecret()), made);
  });

  test('for-other-names-gets-a-certificate-for-ours', async () => {
    await secret.current();
    const { certificate } = await secretOf(['other.handfast-system.svc']).current();
    assert.equal(new X509Certificate(certificate).subjectAltName, 'DNS:other.handfast-system.svc');
  });

  const breakages: Readonly<Record<string, (data: Record<string, unknown>, other: ServingMaterial) => void>> = {
    'a key missing': (data) => delete data['tls.key'],
    'a certificate that is none': (data) => Object.assign(data, { 'tls.crt': Buffer.from('none').toString('base64') }),
    'the key of another certificate': (data, other) => Object.assign(data, { 'tls.key': Buffer.from(other.key).toString('base64') }),
    'a certificate of another authority': (data, other) =>
      Object.assign(data, {
        'tls.crt': Buffer.from(other.certificate).toString('base64'),
        'tls.key': Buffer.from(other.key).toString('base64'),
      }),
    'the key of another authority': (data, other) => Object.assign(data, { 'ca.key': Buffer.from(other.caKey).toString('base64') }),
    'a leaf for its authority': (data) => Object.assign(data, { 'ca.crt': data['tls.crt'], 'ca.key': data['tls.key'] }),
  };
  for (const [name, breakIt] of Object.entries(breakages)) {
    test(`with ${name} is replaced and the log says so`, async () => {
      await secret.current();
      const data: Record<string, unknown> = { ...dataOfSecret() };
      breakIt(data, await makeServing({ dnsNames: DNS_NAMES, now, lifetimes: LIFETIMES }));
      api.put(SECRET, { ...api.objects.get(SECRET), metadata: { name: 'handfast-injector-tls', labels: { app: 'kept' } }, data });
      const made = await secret.current();
      assert.deepEqual(readServing(dataOfSecret()), made);
      assert.ok(said.includes('the Secret is broken and will be replaced'));
      const { metadata } = api.objects.get(SECRET) ?? {};
      assert.deepEqual(isJsonObject(metadata) ? metadata.labels : undefined, { app: 'kept' });
    });
  }

  test('that-always-changes-is-given-up', async () => {
    await secret.current();
    now += LIFETIMES.leafMs;
    const touch = () => {
      const held = api.objects.get(SECRET);
      if (held !== undefined) api.put(SECRET, held);
      api.beforeWrite = touch;
    };
    api.beforeWrite = touch;
    await assert.rejects(secret.current(), refusal('UNAVAILABLE', 'handfast-injector-tls'));
  });
});

describe('the CA bundle', () => {
  test('is-put-into-every-webhook-and-only-if-it-differs', async () => {
    configure();
    assert.equal(await putCaBundle({ api, name: 'handfast-injector', bundle: 'PEM' }), 'changed');
    assert.deepEqual(bundles(), ['PEM', 'PEM']);
    assert.equal(await putCaBundle({ api, name: 'handfast-injector', bundle: 'PEM' }), 'unchanged');
    assert.equal(api.asked.filter((asked) => asked.startsWith('PUT')).length, 1);
  });

  test('is-put-again-when-somebody-else-wrote-first', async () => {
    configure();
    api.beforeWrite = configure;
    assert.equal(await putCaBundle({ api, name: 'handfast-injector', bundle: 'PEM' }), 'changed');
    assert.deepEqual(bundles(), ['PEM', 'PEM']);
  });

  test('keeps-the-rest-of-the-configuration', async () => {
    configure();
    await putCaBundle({ api, name: 'handfast-injector', bundle: 'PEM' });
    const webhooks = api.objects.get(CONFIGURATION)?.webhooks;
    assert.deepEqual(Array.isArray(webhooks) ? webhooks[0] : undefined, {
      name: 'namespace.handfast.io',
      clientConfig: { service: { name: 'handfast-injector' }, caBundle: Buffer.from('PEM').toString('base64') },
    });
  });

  test('waits-for-a-configuration-that-is-not-there-yet', async () => {
    const certificate = certificateOf();
    assert.equal(await certificate.look(), false);
    assert.ok(certificate.shown !== undefined);
    configure();
    assert.equal(await certificate.look(), false, 'it was written just now');
    assert.equal(await certificate.look(), true);
    assert.deepEqual(bundles(), [certificate.shown.caCertificate, certificate.shown.caCertificate]);
  });
});

describe('the certificate that is shown', () => {
  test('of-the-same-authority-is-exchanged-at-once', async () => {
    configure();
    const certificate = certificateOf();
    await certificate.look();
    const before = certificate.shown;
    now += (LIFETIMES.leafMs * 2) / 3 + 60_000;
    await certificate.look();
    assert.notEqual(certificate.shown?.certificate, before?.certificate);
  });

  test('of-a-new-authority-waits-until-the-bundle-has-it', async () => {
    configure();
    const certificate = certificateOf();
    await certificate.look();
    const before = certificate.shown;
    // Within the leaf's life, but the authority's is nearly over: as if the leaf had just been renewed.
    const renewed = await makeServing({ dnsNames: DNS_NAMES, now, lifetimes: LIFETIMES, previousCa: before?.caCertificate });
    const held = api.objects.get(SECRET);
    api.put(SECRET, { ...held, data: secretData(renewed, now) });
    assert.equal(await certificate.look(), false);
    assert.equal(certificate.shown, before, 'the bundle was written just now');
    assert.deepEqual(bundles()[0], renewed.caCertificate + before?.caCertificate);
    assert.equal(await certificate.look(), true);
    assert.equal(certificate.shown?.certificate, renewed.certificate);
  });

  test('stays-while-the-api-server-is-away-and-the-log-says-so-once', async () => {
    configure();
    const certificate = certificateOf();
    await certificate.look();
    const before = certificate.shown;
    api.away = true;
    now += LIFETIMES.leafMs / 2;
    assert.equal(await certificate.look(), false);
    assert.equal(await certificate.look(), false);
    assert.equal(certificate.shown, before);
    assert.equal(said.filter((line) => line === 'serving certificate cannot be had or renewed').length, 1);
    api.away = false;
    assert.equal(await certificate.look(), true);
  });
});
