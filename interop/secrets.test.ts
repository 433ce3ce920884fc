// A real Envoy takes one value of a secret from our agent by SDS, as its filters take them, uses it, and follows its rotation; one that is not entitled has nothing.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createServer, get, type Server } from 'node:http';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ControlPlane } from '../test/support/control-plane.ts';
import { freePort } from '../test/support/free-port.ts';
import { SecretsDir } from '../test/support/secrets.ts';
import { RecordingLog } from '../test/support/sidecar-harness.ts';

const ENVOY = fileURLToPath(new URL('../.interop/envoy/bin/envoy', import.meta.url));
const missing = existsSync(ENVOY) ? false : `there is no ${ENVOY}: run make interop`;
if (missing !== false && process.env.CI === 'true') throw new Error(missing);

/** A proxy that adds the credential of its filter to each request. */
function envoyConfig(of: { listen: number; application: number; socket: string; token: string }): object {
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
  const credential = {
    name: 'secret:foo/db/key',
    sds_config: {
      resource_api_version: 'V3',
      api_config_source: {
        api_type: 'GRPC',
        transport_api_version: 'V3',
        grpc_services: [
          { envoy_grpc: { cluster_name: 'agent' }, initial_metadata: [{ key: 'authorization', value: `Bearer ${of.token}` }] },
        ],
      },
    },
  };
  const filters = [
    {
      name: 'envoy.filters.http.credential_injector',
      typed_config: {
        '@type': 'type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector',
        overwrite: true,
        allow_request_without_credential: true,
        credential: {
          name: 'envoy.http.injected_credentials.generic',
          typed_config: { '@type': 'type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic', credential },
        },
      },
    },
    {
      name: 'envoy.filters.http.router',
      typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' },
    },
  ];
  const manager = {
    '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
    stat_prefix: 'http',
    route_config: {
      virtual_hosts: [{ name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'application' } }] }],
    },
    http_filters: filters,
  };
  return {
    node: { id: 'envoy', cluster: 'interop' },
    static_resources: {
      listeners: [
        {
          name: 'http',
          address: at(of.listen),
          filter_chains: [{ filters: [{ name: 'envoy.filters.network.http_connection_manager', typed_config: manager }] }],
        },
      ],
      clusters: [cluster('application', at(of.application)), cluster('agent', { pipe: { path: of.socket } }, http2)],
    },
  };
}

describe('Envoy', { skip: missing }, () => {
  let plane: ControlPlane;
  let secrets: SecretsDir;
  let application: Server;
  let applicationPort: number;
  const envoys: ChildProcess[] = [];

  before(async () => {
    plane = await ControlPlane.create(new RecordingLog().log);
    secrets = await SecretsDir.create(join(plane.dir, 'secrets'));
    await secrets.secret('db', { versions: { 1: { key: 'first-credential' } }, current: '1' });
    await secrets.policy('a', { secrets: ['db'], recipients: { serviceAccounts: ['foo/a'] } });
    await plane.start({ control: { secrets: { from: { folder: secrets.path } } } });
    applicationPort = await freePort();
    application = createServer((request, response) => response.end(request.headers.authorization ?? 'none'));
    application.listen(applicationPort, '127.0.0.1');
    await once(application, 'listening');
  });
  after(async () => {
    for (const envoy of envoys) {
      envoy.kill('SIGKILL');
      await once(envoy, 'close');
    }
    application.closeAllConnections();
    application.close();
    await plane[Symbol.asyncDispose]();
  });

  async function start(name: string): Promise<number> {
    const listen = await freePort();
    const config = join(plane.dir, `${name}.yaml`);
    const of = { listen, application: applicationPort, socket: plane.socket('agent'), token: await plane.token(name) };
    await writeFile(config, JSON.stringify(envoyConfig(of)), { mode: 0o600 });
    const args = ['-c', config, '--concurrency', '1', '-l', 'error', '--disable-hot-restart', '--base-id', String(envoys.length)];
    envoys.push(spawn(ENVOY, args, { stdio: 'inherit' }));
    return listen;
  }

  const ask = (port: number) =>
    new Promise<string>((resolve) => {
      get({ host: '127.0.0.1', port, agent: false }, (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += String(chunk);
        });
        response.on('end', () => resolve(text));
      }).on('error', ({ message }) => resolve(message));
    });
  async function answers(port: number, wanted: string): Promise<void> {
    const deadline = Date.now() + 30_000;
    for (let said = ''; said !== wanted; said = await ask(port)) {
      assert.ok(Date.now() < deadline, `${said} instead of ${wanted}, for 30 s`);
      await delay(20);
    }
  }

  it('has-the-value-and-the-next-one-and-we-know-it', async () => {
    const port = await start('a');
    await answers(port, 'first-credential');
    await secrets.secret('db', { versions: { 2: { key: 'second-credential' } }, current: '2' });
    await answers(port, 'second-credential');
    const deadline = Date.now() + 10_000;
    for (;;) {
      const [{ holders }] = Object(await plane.ask('control', 'POST', '/secrets', {})).secrets;
      const of = (version: string) => holders.find((holder: { version: string }) => holder.version === version);
      if (of('2')?.delivered > 0 && of('1')?.dropped > 0) break;
      assert.ok(Date.now() < deadline, JSON.stringify(holders));
      await delay(50);
    }
  });

  it('that-is-not-entitled-has-none-of-it', async () => {
    const [other, entitled] = [await start('b'), await start('a')];
    await answers(entitled, 'second-credential');
    // It waits for its secret before it listens, for 15 seconds at most.
    await answers(other, 'none');
  });
});
