// A TLS stack that is not Node's on the other side: openssl's client and server, TLS 1.2 and 1.3.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { freePort } from '../support/free-port.ts';
import { type Pem, TestCa } from '../support/pki.ts';
import { Application, collect, meshOf, startSidecar } from '../support/sidecar-harness.ts';

let dir: string;
let ca: TestCa;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-openssl-'));
  ca = await TestCa.create();
  await writeFile(join(dir, 'root.pem'), ca.rootPem);
});
after(() => rm(dir, { recursive: true }));

async function files(name: string, pem: Pem): Promise<string[]> {
  const path = join(dir, `${name}.pem`);
  await writeFile(path, pem.chain + pem.key, { mode: 0o600 });
  return ['-cert', path, '-cert_chain', path, '-key', path, '-CAfile', join(dir, 'root.pem')];
}

function ended(child: ChildProcess): Promise<string> {
  const chunks: Buffer[] = [];
  child.stdout?.on('data', (chunk) => chunks.push(chunk));
  return once(child, 'close').then(() => Buffer.concat(chunks).toString());
}

describe('openssl as the client of the inbound listener', () => {
  for (const [version, allowed] of [
    ['-tls1_2', true],
    ['-tls1_3', true],
    ['-tls1_1', false],
  ] as const) {
    it(`${version.slice(1)} is ${allowed ? 'let in' : 'refused'}`, async () => {
      await using application = await Application.start((socket) => socket.once('data', (data) => socket.end(`application heard ${data}`)));
      const server = await startSidecar({
        namespace: 'bar',
        name: 'httpbin',
        identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
      });
      server.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin' }] }));
      server.destination = application.endpoint;
      const client = await files('client', await ca.svid('spiffe://cluster.local/ns/foo/sa/sleep'));
      const args = [
        's_client',
        '-connect',
        `127.0.0.1:${server.sidecar.ports.inbound}`,
        version,
        '-alpn',
        'istio',
        '-verify_return_error',
        '-quiet',
        ...client,
      ];
      const openssl = spawn('openssl', args, { stdio: ['pipe', 'pipe', 'ignore'] });
      openssl.stdin.on('error', () => undefined);
      openssl.stdin.write('hello');
      const said = await ended(openssl);
      assert.equal(said.includes('application heard hello'), allowed);
      const record = await server.records.connection('inbound');
      assert.equal(record.decision === 'allowed', allowed, String(record.reason));
      if (!allowed) assert.equal(application.bytes, 0);
      await server[Symbol.asyncDispose]();
    });
  }
});

describe('openssl as the server of the outbound side', () => {
  for (const [serviceAccount, allowed] of [
    ['httpbin', true],
    ['impostor', false],
  ] as const) {
    it(`with the identity of ${serviceAccount} it is ${allowed ? 'reached' : 'refused'}`, async () => {
      const port = await freePort();
      const server = await files('server', await ca.svid(`spiffe://cluster.local/ns/bar/sa/${serviceAccount}`));
      const args = [
        's_server',
        '-accept',
        `127.0.0.1:${port}`,
        '-alpn',
        'istio',
        '-Verify',
        '2',
        '-verify_return_error',
        '-rev',
        '-naccept',
        '2',
        ...server,
      ];
      const openssl = spawn('openssl', args, { stdio: ['ignore', 'pipe', 'ignore'] });
      await once(openssl.stdout, 'data');

      const client = await startSidecar({
        namespace: 'foo',
        name: 'sleep',
        identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
      });
      client.mesh.replace(
        meshOf({
          workloads: [
            { namespace: 'foo', name: 'sleep' },
            { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'] },
          ],
        }),
      );
      client.destination = { address: '127.0.0.1', port: port };
      const socket = connect(client.sidecar.ports.outbound, '127.0.0.1');
      socket.write('hello\n');
      if (allowed) {
        const [answer] = await once(socket, 'data');
        assert.equal(String(answer), 'olleh\n');
        socket.destroy();
      } else {
        assert.equal((await collect(socket)).text, '');
        assert.equal((await client.records.connection('outbound')).code, 'SECURE_NAMING_MISMATCH');
      }
      await client[Symbol.asyncDispose]();
      openssl.kill('SIGKILL');
      await once(openssl, 'close');
    });
  }
});
