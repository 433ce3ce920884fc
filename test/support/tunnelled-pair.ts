// A client and a server whose sidecars speak HBONE, with an application behind: sleep.foo calls httpbin.bar, as if iptables had brought the connection.

import { connect, type Socket } from 'node:net';
import type { MeshSnapshot } from '../../src/policy/mesh-snapshot.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { Application, type MeshSpec, meshOf, type RunningSidecar, type SidecarSetup, startSidecar } from './sidecar-harness.ts';

export interface TunnelledPair extends AsyncDisposable {
  readonly client: RunningSidecar;
  readonly server: RunningSidecar;
  readonly application: Application;
  /** Both pods, the server's with what is given; put in force on both sides by `replace`. */
  world(server?: Partial<MeshSpec['workloads'][number]>, rest?: Partial<MeshSpec>): MeshSnapshot;
  replace(mesh: MeshSnapshot): void;
  /** A connection of the client's application. */
  dial(): Socket;
}

export interface TunnelledSetup {
  readonly identities: { readonly client: Identity; readonly server: Identity };
  readonly client?: Partial<SidecarSetup>;
  readonly server?: Partial<SidecarSetup>;
  readonly onConnection?: (socket: Socket) => void;
}

export async function startTunnelledPair({ identities, onConnection, ...setup }: TunnelledSetup): Promise<TunnelledPair> {
  const application = await Application.start(onConnection);
  const server = await startSidecar({ namespace: 'bar', name: 'httpbin', identity: identities.server, ...setup.server });
  const client = await startSidecar({
    namespace: 'foo',
    name: 'sleep',
    identity: identities.client,
    tunnelPortOf: () => server.sidecar.ports.tunnel,
    ...setup.client,
  });
  const world: TunnelledPair['world'] = (of = {}, rest = {}) =>
    meshOf({
      workloads: [
        { namespace: 'foo', name: 'sleep' },
        { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'], hbone: true, ...of },
      ],
      ...rest,
    });
  const replace = (mesh: MeshSnapshot) => {
    for (const { mesh: snapshot } of [server, client]) snapshot.replace(mesh);
  };
  replace(world());
  client.destination = application.endpoint;
  return {
    client,
    server,
    application,
    world,
    replace,
    dial: () => connect({ port: client.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true }),
    [Symbol.asyncDispose]: async () => {
      await client[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      await application[Symbol.asyncDispose]();
    },
  };
}
