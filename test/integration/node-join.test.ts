// Nodes elsewhere: a join token lets one in, once; from then on agent, control and CA know each other by mutual TLS.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { CaClient } from '../../src/ca/client.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { createCsr } from '../../src/spiffe/csr.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { parseTrustBundle, trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { parseX509Svid } from '../../src/spiffe/x509-svid.ts';
import { tlsTarget, unixTarget } from '../../src/wire/grpc-target.ts';
import { ControlPlane, TRUST_DOMAIN } from '../support/control-plane.ts';
import { startMeshedSidecar } from '../support/meshed-sidecar.ts';
import { keyPair, keyPem, TestCa } from '../support/pki.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

let records: RecordingLog;
let plane: ControlPlane;
let caAddress: string;
let bundleFile: string;

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  const ca = await plane.startCa({ listen: { host: '127.0.0.1', port: 0 }, svidTtlMs: 10_000 });
  caAddress = `127.0.0.1:${ca.port}`;
  bundleFile = join(plane.dir, 'bundle.pem');
  await writeFile(bundleFile, await bundlePem());
});

afterEach(async () => {
  await plane[Symbol.asyncDispose]();
});

async function bundlePem(): Promise<string> {
  const text = await readFile(join(plane.dir, 'ca/root.pem'), 'utf8');
  return text.slice(text.indexOf('-----BEGIN CERTIFICATE'));
}

async function joinToken(of: { role: 'agent' | 'control'; node?: string; ttlMs?: number }): Promise<string> {
  const { token } = Object(await plane.ask('ca', 'POST', '/join-tokens', { ttlMs: 60_000, ...of }));
  const path = join(plane.dir, `join-${Math.random()}`);
  await writeFile(path, token);
  return path;
}

/** Options of an agent that is not on the CA's machine. */
const remote = (of: { joinTokenFile?: string; control?: string }) => ({
  ca: caAddress,
  trustBundleFile: bundleFile,
  joinTokenFile: of.joinTokenFile,
  ...(of.control === undefined ? {} : { controls: [of.control] }),
});

async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 25_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, `${what}: not within 25 s`);
    await delay(50);
  }
}

async function startRemoteControl({ join: joins, port }: { join: boolean; port: number } = { join: true, port: 0 }): Promise<string> {
  const node = {
    ca: caAddress,
    caKind: 'handfast' as const,
    trustDomain: TRUST_DOMAIN,
    trustBundleFile: bundleFile,
    caServerName: undefined,
    stateDir: join(plane.dir, 'control-state'),
    joinTokenFile: joins ? await joinToken({ role: 'control' }) : undefined,
    log: plane.log,
    now: Date.now,
  };
  const control = await plane.startControl({ listen: { host: '127.0.0.1', port, node } });
  return `127.0.0.1:${control.port}`;
}

/** The CA, asked over TLS with this certificate or none. */
function caOver(identity?: Identity): CaClient {
  const bundles = identity?.bundles;
  return new CaClient(
    tlsTarget({
      address: caAddress,
      identity: () => identity,
      bundles: () => bundles ?? own,
      revocations: () => noRevocations,
      expected: { spiffeIds: [`spiffe://${TRUST_DOMAIN}/handfast/ca`] },
      now: Date.now,
    }),
  );
}
let own: ReturnType<typeof trustBundles>;
beforeEach(async () => {
  own = trustBundles(parseTrustBundle(await bundlePem(), TRUST_DOMAIN));
});

describe('joining', () => {
  it('agent-and-control-join-and-a-sidecar-gets-its-certificate-through-them', async () => {
    const control = await startRemoteControl();
    await plane.startAgent(remote({ joinTokenFile: await joinToken({ role: 'agent', node: 'node-1' }), control }));
    const sidecar = await startMeshedSidecar(plane, { name: 'sleep' });
    assert.equal(sidecar.identity.current?.svid.id.uri, 'spiffe://cluster.local/ns/foo/sa/sleep');
    await records.find((record) => record.msg === 'certificate issued' && record.node === 'node-1');
    const kept = join(plane.dir, 'agent/node.pem');
    assert.equal((await stat(kept)).mode & 0o777, 0o600);
    await sidecar[Symbol.asyncDispose]();
  });

  it('the-restarted-agent-needs-no-token', async () => {
    const control = await startRemoteControl();
    await plane.startAgent(remote({ joinTokenFile: await joinToken({ role: 'agent', node: 'node-1' }), control }));
    await plane.stopAgent();
    await plane.startAgent(remote({ control }));
    const sidecar = await startMeshedSidecar(plane, { name: 'sleep' });
    await sidecar[Symbol.asyncDispose]();
  });

  it('after-a-change-of-root-a-restarted-node-knows-the-ca-by-what-it-kept', async () => {
    const control = await startRemoteControl();
    const joinTokenFile = await joinToken({ role: 'agent', node: 'node-1' });
    await plane.startAgent(remote({ joinTokenFile, control }));
    const stage = async () => Object(await plane.ask('ca', 'GET', '/status')).rotation;
    const order = (verb: string) => plane.ask('ca', 'POST', `/root/${verb}`, {});
    const confirmed = () => eventually('all nodes to confirm', async () => (await stage()).behind.length === 0);
    await order('prepare');
    await confirmed();
    await order('activate');
    await eventually('nodes to renew below the new root', async () => (await stage()).liveBelowOld === 0);
    // In the middle of it, and with the old root gone: the file to begin with has the old root alone.
    for (const verb of ['activate', 'retire']) {
      await order(verb);
      await confirmed();
      await plane.stopAgent();
      await plane.startAgent(remote({ control }));
      const sidecar = await startMeshedSidecar(plane, { name: 'sleep' });
      await sidecar[Symbol.asyncDispose]();
      if (verb === 'activate') await eventually('the last certificate below the old root', async () => (await stage()).liveBelowOld === 0);
    }
  });

  it('a-newer-bundle-file-goes-before-what-was-kept-and-an-older-one-does-not', async () => {
    const control = await startRemoteControl();
    await plane.startAgent(remote({ joinTokenFile: await joinToken({ role: 'agent', node: 'node-1' }), control }));
    await eventually('the bundle to be kept', async () => existsSync(join(plane.dir, 'agent/bundle.pem')));
    await plane.stopAgent();
    const rogue = (await TestCa.create()).rootPem;
    await writeFile(bundleFile, rogue);
    const [now, before] = [Date.now() / 1000, Date.now() / 1000 - 3600];
    await utimes(bundleFile, now + 10, now + 10);
    await assert.rejects(plane.startAgent(remote({ control })), { code: 'UNAVAILABLE' });
    await utimes(bundleFile, before, before);
    await plane.startAgent(remote({ control }));
  });

  it('control-that-starts-while-the-ca-is-away-remembers-who-is-revoked', async () => {
    const control = await startRemoteControl();
    await plane.startAgent(remote({ joinTokenFile: await joinToken({ role: 'agent', node: 'node-1' }), control }));
    const kept = () => readFile(join(plane.dir, 'control-state/revocations.pem'), 'utf8').catch(() => '');
    await eventually('the first list to be kept', async () => (await kept()) !== '');
    const before = await kept();
    await plane.ask('ca', 'POST', '/revocations', { spiffeId: 'spiffe://cluster.local/handfast/agent/node-1' });
    await eventually('the next list to be kept', async () => (await kept()) !== before);
    await plane.control?.stop();
    await plane.stopCa();
    const again = await startRemoteControl({ join: false, port: Number(control.split(':')[1]) });
    assert.equal(again, control);
    const refused = await records.find((record) => record.code === 'CERTIFICATE_REVOKED');
    assert.match(String(refused.reason), /handfast\/agent\/node-1/);
  });

  it('names-of-the-meshs-own-parts-are-no-node-names', async () => {
    for (const node of ['local', 'control', 'ca']) await assert.rejects(joinToken({ role: 'agent', node }), /none of local, control, ca/);
    await assert.rejects(plane.ask('ca', 'POST', '/revocations', { spiffeId: 'spiffe://cluster.local/handfast/ca' }), /a new root/);
  });

  it('over-the-network-control-needs-a-certificate-on-both-sides', async () => {
    await assert.rejects(plane.startAgent({ controls: ['127.0.0.1:1'] }), /--control HOST:PORT needs a certificate/);
    const node = {
      ...plane.agentOptions(),
      stateDir: join(plane.dir, 'control-state'),
    };
    await assert.rejects(plane.startControl({ listen: { host: '127.0.0.1', port: 0, node } }), /--listen needs a certificate/);
  });

  it('a-token-is-good-once', async () => {
    const joinTokenFile = await joinToken({ role: 'agent', node: 'node-1' });
    const joinToken1 = await readFile(joinTokenFile, 'utf8');
    const ca = caOver();
    await ca.join({ joinToken: joinToken1, csr: createCsr(keyPair()) });
    await assert.rejects(ca.join({ joinToken: joinToken1, csr: createCsr(keyPair()) }), { code: 'JOIN_TOKEN_REFUSED' });
    await joinToken({ role: 'agent', node: 'node-2' });
    await assert.rejects(plane.startAgent(remote({ joinTokenFile })), { code: 'JOIN_TOKEN_REFUSED' });
    ca.close();
  });

  it('a-csr-that-is-none-does-not-cost-the-token', async () => {
    const token = await readFile(await joinToken({ role: 'agent', node: 'node-1' }), 'utf8');
    const ca = caOver();
    await assert.rejects(ca.join({ joinToken: token, csr: 'no csr' }));
    assert.match((await ca.join({ joinToken: token, csr: createCsr(keyPair()) })).chain, /BEGIN CERTIFICATE/);
    ca.close();
  });

  it('without-a-token-it-is-said-how-to-get-one', async () => {
    await assert.rejects(plane.startAgent(remote({})), /handfast join-token create/);
    assert.ok(!existsSync(plane.socket('agent')));
  });

  it('without-a-bundle-nothing-is-trusted', async () => {
    await assert.rejects(plane.startAgent({ ca: caAddress }), /--trust-bundle/);
  });

  it('an-impostor-ca-gets-no-token', async () => {
    const rogue = await TestCa.create();
    await writeFile(bundleFile, rogue.rootPem);
    const joinTokenFile = await joinToken({ role: 'agent', node: 'node-1' });
    await assert.rejects(plane.startAgent(remote({ joinTokenFile })), { code: 'UNAVAILABLE' });
    // The token was never sent: it is still good.
    await writeFile(bundleFile, await bundlePem());
    await plane.startAgent(remote({ joinTokenFile }));
  });

  it('a-server-with-a-workloads-certificate-is-not-the-ca', async () => {
    await plane.startAgent({ controls: [plane.address('control')] });
    const sidecar = await startMeshedSidecar(plane, { name: 'impostor' });
    const { identity } = sidecar;
    assert.ok(identity.current);
    const target = tlsTarget({
      address: caAddress,
      identity: () => identity.current,
      bundles: () => own,
      revocations: () => noRevocations,
      expected: { spiffeIds: ['spiffe://cluster.local/ns/foo/sa/somebody'] },
      now: Date.now,
    });
    const ca = new CaClient(target);
    await assert.rejects(
      ca.sign({ csr: createCsr(keyPair()), token: await plane.token('sleep') }),
      /must be .*somebody, but proved to be .*handfast\/ca/,
    );
    ca.close();
    await sidecar[Symbol.asyncDispose]();
  });
});

describe('what a caller may ask the CA for over the network', () => {
  it('a-workloads-certificate-does-not-make-a-node', async () => {
    await plane.startAgent({ controls: [plane.address('control')] });
    const sidecar = await startMeshedSidecar(plane, { name: 'sleep' });
    const ca = caOver(sidecar.identity.current);
    await assert.rejects(ca.sign({ csr: createCsr(keyPair()), token: await plane.token('sleep') }), /neither an agent nor control/);
    await assert.rejects(ca.renew({ csr: createCsr(keyPair()) }), /neither an agent nor control/);
    ca.close();
    await sidecar[Symbol.asyncDispose]();
  });

  it('without-a-certificate-nobody-is-let-in-unless-a-join-token-is-waiting', async () => {
    const before = caOver();
    await assert.rejects(before.renew({ csr: createCsr(keyPair()) }), { code: 'UNAVAILABLE' });
    before.close();
    const refused = await records.find((record) => record.msg === 'connection refused');
    assert.equal(refused.code, 'NO_CLIENT_CERTIFICATE');
    const token = await readFile(await joinToken({ role: 'agent', node: 'node-1' }), 'utf8');
    const ca = caOver();
    assert.match((await ca.join({ joinToken: token, csr: createCsr(keyPair()) })).chain, /BEGIN CERTIFICATE/);
    ca.close();
    const after = caOver();
    await assert.rejects(after.join({ joinToken: token, csr: createCsr(keyPair()) }), { code: 'UNAVAILABLE' }, 'it was the last one');
    after.close();
  });

  it('without-a-certificate-two-calls-at-once-of-64-kib-are-all-there-is', async () => {
    await joinToken({ role: 'agent', node: 'node-1' });
    const session = connectHttp2(`https://${caAddress}`, { rejectUnauthorized: false });
    session.on('error', () => undefined);
    const [settings] = await once(session, 'remoteSettings');
    assert.equal(settings.maxConcurrentStreams, 2);
    const ask = async (bytes: number) => {
      const head = Buffer.alloc(5);
      head.writeUInt32BE(bytes, 1);
      const call = session.request({
        ':method': 'POST',
        ':path': '/handfast.ca.v1.NodeService/Join',
        'content-type': 'application/grpc',
        te: 'trailers',
      });
      const answered = once(call, 'response');
      call.resume();
      call.write(head);
      call.end(Buffer.alloc(bytes, 0));
      const [headers] = await answered;
      call.destroy();
      return Number(headers['grpc-status']);
    };
    assert.equal(await ask(64 * 1024 + 1), status.RESOURCE_EXHAUSTED);
    assert.notEqual(await ask(64 * 1024), status.RESOURCE_EXHAUSTED);
    session.destroy();
  });

  it('a-token-alone-is-not-enough-unless-the-ca-says-so', async () => {
    await joinToken({ role: 'agent', node: 'node-1' });
    const ca = caOver();
    const request = async () => ({ csr: createCsr(keyPair()), token: await plane.token('sleep') });
    await assert.rejects(ca.sign(await request()), { code: 'IDENTITY_MISMATCH' });
    await assert.rejects(ca.renew({ csr: createCsr(keyPair()) }), { code: 'TOKEN_REFUSED' });
    ca.close();
    await plane.stopCa();
    const again = await plane.startCa({ listen: { host: '127.0.0.1', port: 0 }, tokensAlone: true });
    caAddress = `127.0.0.1:${again.port}`;
    const open = caOver();
    assert.match((await open.sign(await request())).chain, /BEGIN CERTIFICATE/);
    open.close();
  });

  it('a-stolen-node-certificate-speaks-only-for-tokens-it-holds', async () => {
    const token = await readFile(await joinToken({ role: 'agent', node: 'node-1' }), 'utf8');
    const keys = keyPair();
    const anonymous = caOver();
    const { chain } = await anonymous.join({ joinToken: token, csr: createCsr(keys) });
    anonymous.close();
    const thief = caOver({ svid: parseX509Svid({ chain, key: keyPem(keys.privateKey) }), bundles: own });
    await assert.rejects(thief.sign({ csr: createCsr(keyPair()), token: 'made.up.token' }), { code: 'TOKEN_REFUSED' });
    const forAdmin = createCsr(keyPair(), parseSpiffeId('spiffe://cluster.local/ns/foo/sa/admin'));
    await assert.rejects(thief.sign({ csr: forAdmin, token: await plane.token('sleep') }), { code: 'IDENTITY_MISMATCH' });
    assert.match((await thief.sign({ csr: createCsr(keyPair()), token: await plane.token('sleep') })).chain, /BEGIN CERTIFICATE/);

    // And its own time is over when the node is revoked: at once, on the connection that is open.
    await plane.ask('ca', 'POST', '/revocations', { spiffeId: 'spiffe://cluster.local/handfast/agent/node-1' });
    await records.find((record) => record.msg === 'connections of revoked nodes ended');
    await assert.rejects(thief.sign({ csr: createCsr(keyPair()), token: await plane.token('sleep') }), { code: 'UNAVAILABLE' });
    thief.close();
  });

  it('istios-protocol-by-dns-name-and-token-alone-both-sides', async () => {
    await plane.stopCa();
    const dnsNames = ['istiod.istio-system.svc'];
    const ca = await plane.startCa({ listen: { host: '127.0.0.1', port: 0 }, tokensAlone: true, dnsNames });
    const istio = { ca: `127.0.0.1:${ca.port}`, caKind: 'istio' as const, trustBundleFile: bundleFile };
    await plane.startAgent({ ...istio, caServerName: 'istiod.istio-system.svc', controls: [plane.address('control')] });
    const sidecar = await startMeshedSidecar(plane, { name: 'sleep' });
    assert.equal(sidecar.identity.current?.svid.id.uri, 'spiffe://cluster.local/ns/foo/sa/sleep');
    await records.find((record) => record.msg === 'certificate issued' && record.purpose === 'token-alone');
    await sidecar[Symbol.asyncDispose]();
    // Another name than the certificate's is not believed.
    const under = (dnsName: string) =>
      new CaClient(
        tlsTarget({
          address: istio.ca,
          identity: () => undefined,
          bundles: () => own,
          revocations: () => noRevocations,
          expected: { dnsName },
          now: Date.now,
        }),
      );
    const [wrong, right] = [under('istiod.elsewhere.svc'), under('istiod.istio-system.svc')];
    const request = { csr: createCsr(keyPair()), token: await plane.token('sleep') };
    await assert.rejects(wrong.sign(request), { code: 'UNAVAILABLE' });
    assert.match((await right.sign(request)).chain, /BEGIN CERTIFICATE/);
    wrong.close();
    right.close();
  });

  it('the-cas-own-certificate-once-revoked-is-replaced-at-once', async () => {
    const serial = async () => {
      const socket = connectTls({
        port: Number(caAddress.split(':')[1]),
        host: '127.0.0.1',
        ALPNProtocols: ['h2'],
        rejectUnauthorized: false,
      });
      socket.on('error', () => undefined);
      await once(socket, 'secureConnect');
      const seen = socket.getPeerX509Certificate()?.serialNumber;
      socket.destroy();
      return seen;
    };
    const before = await serial();
    await plane.ask('ca', 'POST', '/revocations', { serial: before });
    await eventually('another certificate', async () => (await serial()) !== before);
  });

  it('plaintext-and-tls-1.1-get-nothing', async () => {
    const socket = connectTls({
      port: Number(caAddress.split(':')[1]),
      host: '127.0.0.1',
      maxVersion: 'TLSv1.1',
      minVersion: 'TLSv1',
      rejectUnauthorized: false,
    });
    const error = await new Promise<Error>((resolve) => socket.once('error', resolve));
    assert.match(error.message, /version|alert|unsupported|no protocols/i);
    assert.throws(() => unixTarget(caAddress), { code: 'CONFIG_INVALID' });
  });
});
