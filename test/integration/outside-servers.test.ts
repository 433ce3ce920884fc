// TLS to servers outside the mesh, as a DestinationRule with SIMPLE or MUTUAL wants it: their certificates are made by openssl, and nobody in the mesh has signed them.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import type { ClientTls } from '../../src/policy/model.ts';
import { TestCa } from '../support/pki.ts';
import { collect, meshOf, type RunningSidecar, startSidecar } from '../support/sidecar-harness.ts';

const VIP = { address: '10.96.0.10', port: 443 };
const HOST = 'api.example.com';

let dir: string;
let client: RunningSidecar;
let server: Server;
const seen: { serverName: string | false; client: string | undefined }[] = [];

const file = (name: string) => join(dir, name);

function selfSigned(name: string, subjectAltName: string): void {
  const args = ['-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '1', '-subj', `/CN=${name}`];
  execFileSync(
    'openssl',
    ['req', ...args, '-addext', `subjectAltName=${subjectAltName}`, '-keyout', file(`${name}.key`), '-out', file(`${name}.pem`)],
    {
      stdio: 'ignore',
    },
  );
}

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-outside-'));
  selfSigned('api', `DNS:${HOST},DNS:*.api.example.com,URI:spiffe://vendor.example/api`);
  selfSigned('rival', `DNS:${HOST}`);
  selfSigned('us', 'DNS:us.example.com');
  execFileSync('mkfifo', [file('pipe')]);
  const pem = await readFile(file('api.pem'), 'utf8');
  await writeFile(file('largest.pem'), pem.padEnd(1024 * 1024, '\n'));
  await writeFile(file('large.pem'), pem.padEnd(1024 * 1024 + 1, '\n'));
  server = createServer(
    {
      cert: await readFile(file('api.pem')),
      key: await readFile(file('api.key')),
      requestCert: true,
      rejectUnauthorized: false,
      allowHalfOpen: true,
    },
    (socket: TLSSocket) => {
      seen.push({ serverName: socket.servername ?? false, client: socket.getPeerX509Certificate()?.subject });
      socket.on('error', () => undefined);
      socket.pipe(socket);
    },
  );
  server.on('tlsClientError', () => undefined);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const ca = await TestCa.create();
  client = await startSidecar({ namespace: 'foo', name: 'sleep', identity: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep') });
  client.destination = VIP;
});

after(async () => {
  await client[Symbol.asyncDispose]();
  server.close();
  await rm(dir, { recursive: true });
});

afterEach(async () => {
  await client.settled();
  seen.length = 0;
});

function tls(change: Partial<ClientTls> = {}): ClientTls {
  return {
    mode: 'SIMPLE',
    subjectAltNames: [],
    sni: undefined,
    clientCertificate: undefined,
    privateKey: undefined,
    caCertificates: file('api.pem'),
    source: 'DestinationRule foo/api',
    ...change,
  };
}

async function hello(rule: ClientTls): Promise<{ text: string; record: Readonly<Record<string, unknown>> }> {
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  client.mesh.replace(
    meshOf({
      workloads: [
        { namespace: 'foo', name: 'sleep', clientTls: [{ host: HOST, tls: rule, ports: new Map() }] },
        { namespace: 'foo', name: 'api', addresses: ['127.0.0.1'], meshed: false, services: { [`foo/${HOST}`]: [443, address.port] } },
      ],
      services: [{ namespace: 'foo', name: HOST, address: VIP.address }],
    }),
  );
  const socket = connect({ port: client.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });
  socket.end('hello');
  const { text } = await collect(socket);
  return { text, record: await client.records.connection('outbound') };
}

describe('SIMPLE', () => {
  it('server-with-our-roots-and-the-dialled-name', async () => {
    const { text, record } = await hello(tls());
    assert.equal(text, 'hello', String(record.reason));
    assert.deepEqual([record.transport, record.mode, record.decision], ['tls', 'SIMPLE by DestinationRule foo/api', 'allowed']);
    assert.deepEqual(seen, [{ serverName: HOST, client: undefined }]);
  });

  for (const [name, names] of [
    ['a name', [HOST]],
    ['one of several', ['other.example.com', HOST]],
    ['a URI', ['spiffe://vendor.example/api']],
  ] as const)
    it(`subject-alt-names-${name.replaceAll(' ', '-')}`, async () =>
      assert.equal((await hello(tls({ subjectAltNames: names }))).text, 'hello'));

  it('sni-of-the-rule-is-sent-and-is-what-the-server-must-be', async () => {
    assert.equal((await hello(tls({ sni: 'x.api.example.com' }))).text, 'hello');
    assert.equal(seen[0]?.serverName, 'x.api.example.com');
  });

  const refused: readonly (readonly [name: string, rule: () => ClientTls, code: string, reason: RegExp])[] = [
    ['another-root', () => tls({ caCertificates: file('rival.pem') }), 'CHAIN_UNTRUSTED', /self-signed|does not chain/],
    ['the-public-roots-alone', () => tls({ caCertificates: undefined }), 'CHAIN_UNTRUSTED', /self-signed|does not chain/],
    ['another-name', () => tls({ sni: 'www.example.com' }), 'SECURE_NAMING_MISMATCH', /www\.example\.com/],
    [
      'other-subject-alt-names',
      () => tls({ subjectAltNames: ['www.example.com'] }),
      'SECURE_NAMING_MISMATCH',
      /must be www\.example\.com by DestinationRule foo\/api.*DNS:api\.example\.com/,
    ],
    ['a-wildcard-is-not-the-name-it-covers', () => tls({ subjectAltNames: ['y.api.example.com'] }), 'SECURE_NAMING_MISMATCH', /y\.api/],
    [
      'a-file-that-is-not-there',
      () => tls({ caCertificates: file('none.pem') }),
      'CONFIG_INVALID',
      /DestinationRule foo\/api: cannot read .*none\.pem/,
    ],
    [
      'a-pipe',
      () => tls({ caCertificates: file('pipe') }),
      'CONFIG_INVALID',
      /DestinationRule foo\/api: cannot read .*pipe.*not a regular file/,
    ],
    ['a-device', () => tls({ caCertificates: '/dev/zero' }), 'CONFIG_INVALID', /cannot read \/dev\/zero .*not a regular file/],
    ['a-directory', () => tls({ caCertificates: dir }), 'CONFIG_INVALID', /cannot read .*not a regular file/],
    [
      'a-file-of-more-than-1-MiB',
      () => tls({ caCertificates: file('large.pem') }),
      'CONFIG_INVALID',
      /large\.pem .*more than 1048576 bytes/,
    ],
    ['a-file-that-is-none', () => tls({ caCertificates: file('junk.pem') }), 'CHAIN_UNTRUSTED', /./],
  ];
  for (const [name, rule, code, reason] of refused)
    it(`refused-${name}`, async () => {
      await writeFile(file('junk.pem'), 'not a certificate');
      const { text, record } = await hello(rule());
      assert.equal(text, '');
      assert.equal(record.code, code, String(record.reason));
      assert.match(String(record.reason), reason);
      assert.equal(seen.length === 0 || record.bytesToApplication === 0, true);
    });
});

describe('one thing under several names', () => {
  // The registry has them in the order of their names, and HOST has the rule.
  for (const [place, others] of [
    ['first', ['b.example', 'c.example']],
    ['between', ['a.example', 'b.example']],
    ['last', ['a.example', 'a2.example']],
  ] as const)
    it(`the-rule-of-any-name-holds-nobody-knows-by-which-it-was-looked-up-${place}`, async () => {
      const address = server.address();
      assert.ok(typeof address === 'object' && address !== null);
      const names = [...others, HOST];
      const at = { first: 0, between: 1, last: 2 }[place];
      assert.equal([...names].sort().indexOf(HOST), at);
      client.mesh.replace(
        meshOf({
          workloads: [
            { namespace: 'foo', name: 'sleep', clientTls: [{ host: HOST, tls: tls(), ports: new Map() }] },
            {
              namespace: 'foo',
              name: 'api',
              addresses: ['127.0.0.1'],
              meshed: false,
              services: Object.fromEntries(names.map((name) => [`foo/${name}`, [443, address.port] as const])),
            },
          ],
          services: names.map((name) => ({ namespace: 'foo', name, address: VIP.address })),
        }),
      );
      const socket = connect({ port: client.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });
      socket.end('hello');
      assert.equal((await collect(socket)).text, 'hello');
      assert.deepEqual([(await client.records.connection('outbound')).transport, seen[0]?.serverName], ['tls', HOST]);
    });
});

it('a-pipe-as-the-key-holds-up-nobody-else-who-reads-files', async () => {
  // As many as there are threads for files, and more.
  for (let times = 0; times < 6; times++) {
    const { record } = await hello(tls({ mode: 'MUTUAL', clientCertificate: file('us.pem'), privateKey: file('pipe') }));
    assert.equal(record.code, 'CONFIG_INVALID', String(record.reason));
  }
  assert.match(await readFile(file('api.pem'), 'utf8'), /BEGIN CERTIFICATE/);
  assert.equal((await hello(tls({ caCertificates: file('largest.pem') }))).text, 'hello');
});

it('a-file-behind-a-link-is-read-as-ConfigMaps-have-them', async () => {
  await symlink(file('api.pem'), file('linked.pem'));
  assert.equal((await hello(tls({ caCertificates: file('linked.pem') }))).text, 'hello');
});

describe('an open connection', () => {
  it('to-a-server-that-is-called-by-the-address-it-stands-at-outlives-changes-that-do-not-concern-it', async () => {
    const address = server.address();
    assert.ok(typeof address === 'object' && address !== null);
    const world = (rule: ClientTls | undefined, meshed = false) =>
      meshOf({
        workloads: [
          { namespace: 'foo', name: 'sleep', clientTls: rule === undefined ? [] : [{ host: HOST, tls: rule, ports: new Map() }] },
          {
            namespace: 'foo',
            name: 'api',
            addresses: ['127.0.0.1'],
            meshed,
            services: { [`foo/${HOST}`]: [address.port, address.port] },
          },
        ],
        services: [{ namespace: 'foo', name: HOST, address: '127.0.0.1' }],
      });
    client.destination = { address: '127.0.0.1', port: address.port };
    // Another rule, or a server that is STRICT in the mesh now, and hears no plaintext from us: it drains.
    for (const later of [world(tls({ subjectAltNames: ['www.example.com'] })), world(undefined, true)]) {
      client.mesh.replace(world(tls()));
      const socket = connect({ port: client.sidecar.ports.outbound, host: '127.0.0.1' });
      const say = async (word: string) => {
        socket.write(word);
        return String((await once(socket, 'data'))[0]);
      };
      assert.equal(await say('hello'), 'hello');
      client.mesh.replace(world(tls()));
      assert.equal(await say('again'), 'again');
      client.mesh.replace(later);
      assert.equal(await say('once more'), 'once more');
      await once(socket, 'close');
      assert.equal((await client.records.connection('outbound')).outcome, 'drained');
      await client.settled();
    }
    client.destination = VIP;
  });
});

describe('MUTUAL', () => {
  it('our-certificate-is-shown-and-a-changed-file-holds-from-the-next-connection', async () => {
    const rule = tls({ mode: 'MUTUAL', clientCertificate: file('us.pem'), privateKey: file('us.key') });
    assert.equal((await hello(rule)).text, 'hello');
    assert.equal(seen[0]?.client, 'CN=us');
    await client.settled();
    selfSigned('us', 'DNS:us2.example.com');
    assert.equal((await hello(rule)).text, 'hello');
  });

  it('refused-a-key-of-another-certificate', async () => {
    const rule = tls({ mode: 'MUTUAL', clientCertificate: file('us.pem'), privateKey: file('api.key') });
    const { text, record } = await hello(rule);
    assert.equal(text, '');
    assert.deepEqual([record.code, seen.length], ['CONFIG_INVALID', 0]);
    assert.match(String(record.reason), /DestinationRule foo\/api: its certificate, key or CA file cannot be used/);
  });
});
