// A client and a server with sidecars that have their certificates from a real agent, and an application behind: sleep.foo calls httpbin.foo.

import { connect } from 'node:net';
import type { ControlPlane } from './control-plane.ts';
import { type MeshedSetup, startMeshedSidecar } from './meshed-sidecar.ts';
import { Application, collect, meshOf, type RunningSidecar } from './sidecar-harness.ts';

export interface MeshedPair extends AsyncDisposable {
  readonly client: RunningSidecar;
  readonly server: RunningSidecar;
  readonly application: Application;
  /** What comes back for hello through both sidecars; with an error's code where there was one. */
  ask(): Promise<{ text: string; error?: string }>;
}

/** Waits until both have their certificates, and their revocation lists where they ask for any. */
export async function startMeshedPair(
  plane: Pick<ControlPlane, 'address' | 'token'>,
  setup: { client?: Partial<MeshedSetup>; server?: Partial<MeshedSetup> } = {},
): Promise<MeshedPair> {
  const application = await Application.start();
  const client = await startMeshedSidecar(plane, { name: 'sleep', ...setup.client });
  const server = await startMeshedSidecar(plane, { name: 'httpbin', ...setup.server });
  const mesh = meshOf({
    workloads: [
      { namespace: 'foo', name: 'sleep' },
      { namespace: 'foo', name: 'httpbin', addresses: ['127.0.0.1'] },
    ],
  });
  for (const { mesh: snapshot } of [client, server]) snapshot.replace(mesh);
  server.destination = application.endpoint;
  client.destination = { address: '127.0.0.1', port: server.sidecar.ports.inbound };
  for (const [sidecar, options] of [
    [client, setup.client],
    [server, setup.server],
  ] as const) {
    if (options === undefined || !('crl' in options)) await sidecar.records.find((record) => record.msg === 'revocation list in force');
  }
  return {
    client,
    server,
    application,
    ask: () => {
      const socket = connect(client.sidecar.ports.outbound, '127.0.0.1');
      socket.write('hello');
      socket.once('data', () => socket.end());
      return collect(socket);
    },
    [Symbol.asyncDispose]: async () => {
      await client[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      await application[Symbol.asyncDispose]();
    },
  };
}
