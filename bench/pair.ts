// `bench proxy`: two proxies a peer between a plain HTTP client and a plain HTTP server, mTLS between the two.

import { BACKEND_PORT } from './backend.ts';
import { issueLeaf } from './certificates.ts';
import { type Deployment, inspect, startBackend, startPeer } from './deployment.ts';
import { httpLoad } from './load.ts';
import { SERVICE, startMesh } from './mesh.ts';
import { dialingPort, servingPort } from './peers.ts';
import { runRounds } from './rounds.ts';
import type { BenchOptions, ScenarioResult } from './scenario.ts';
import { Testbed } from './testbed.ts';

/** `close` is a new connection for each request. */
const scenarios = [
  { name: 'new-connections', connections: 16, close: true },
  { name: 'keepalive-1', connections: 1, close: false },
  { name: 'keepalive-64', connections: 64, close: false },
] as const;

export async function benchPair(options: BenchOptions): Promise<ScenarioResult[]> {
  await using testbed = await Testbed.create();
  const outsider = await testbed.addPod('outsider');
  const [client, server] = [await testbed.addPod('client'), await testbed.addPod('server')];
  const mesh = await startMesh(testbed, [client, server]);
  const leaf = (name: string, isServer: boolean) => issueLeaf({ name, server: isServer, caDir: mesh.caDir, dir: testbed.directory });
  const credentials = await leaf('outsider', false);
  const oneRequest = httpLoad(testbed, { generator: 'node', connections: 1, close: true });
  const ask = async (deployment: Deployment) => {
    const { operations, failure } = await oneRequest(deployment, 0.001);
    if (operations === 0) throw new Error(`no request gets through the pair: ${failure}`);
    return inspect(testbed, { pod: outsider, credentials, guarded: deployment.guarded });
  };
  startBackend(testbed, server);

  const deployments: Deployment[] = [
    {
      peer: 'handfast',
      version: options.version,
      proxies: [await mesh.startSidecar(client), await mesh.startSidecar(server)],
      client,
      // Captured on its way to the service, and again on its way into the server's pod.
      target: SERVICE,
      guarded: { host: server.ipv4, port: BACKEND_PORT },
    },
  ];
  for (const peer of options.peers) {
    const [clientPod, serverPod] = [await testbed.addPod(`${peer.name}-client`), await testbed.addPod(`${peer.name}-server`)];
    startBackend(testbed, serverPod);
    const serving = peer.serving(await leaf(serverPod.name, true));
    const dialing = peer.dialing(await leaf(clientPod.name, false), serverPod.ipv4);
    deployments.push({
      peer: peer.name,
      version: peer.version,
      proxies: [
        await startPeer(testbed, { peer, pod: clientPod, config: dialing }),
        await startPeer(testbed, { peer, pod: serverPod, config: serving }),
      ],
      client: clientPod,
      target: { host: '127.0.0.1', port: dialingPort },
      guarded: { host: serverPod.ipv4, port: servingPort },
    });
  }

  const results: ScenarioResult[] = [];
  for (const { name, ...kind } of scenarios) {
    const load = httpLoad(testbed, { generator: options.generator, ...kind });
    results.push({ name, performances: await runRounds({ ...options, scenario: name, deployments, load, inspect: ask }) });
  }
  return results;
}
