// `bench handshake`: one serving proxy a peer, full mTLS handshakes from outside the mesh.

import { BACKEND_PORT } from './backend.ts';
import { issueLeaf } from './certificates.ts';
import { type Deployment, inspect, startBackend, startPeer } from './deployment.ts';
import { handshakeLoad } from './load.ts';
import { startMesh } from './mesh.ts';
import { servingPort } from './peers.ts';
import { runRounds } from './rounds.ts';
import type { BenchOptions, ScenarioResult } from './scenario.ts';
import { type Running, Testbed } from './testbed.ts';

export async function benchHandshake(options: BenchOptions): Promise<ScenarioResult[]> {
  await using testbed = await Testbed.create();
  const client = await testbed.addPod('outsider');
  const server = await testbed.addPod('server');
  const mesh = await startMesh(testbed, [server]);
  const leaf = (name: string, isServer: boolean) => issueLeaf({ name, server: isServer, caDir: mesh.caDir, dir: testbed.directory });
  const credentials = await leaf('outsider', false);
  const ask = (deployment: Deployment) => inspect(testbed, { pod: client, credentials, guarded: deployment.guarded });
  startBackend(testbed, server);

  const address = { host: server.ipv4, port: BACKEND_PORT };
  const proxies: Running[] = [await mesh.startSidecar(server)];
  const deployments: Deployment[] = [{ peer: 'handfast', version: options.version, proxies, client, target: address, guarded: address }];
  for (const peer of options.peers) {
    const pod = await testbed.addPod(peer.name);
    startBackend(testbed, pod);
    const proxy = await startPeer(testbed, { peer, pod, config: peer.serving(await leaf(peer.name, true)) });
    const target = { host: pod.ipv4, port: servingPort };
    deployments.push({ peer: peer.name, version: peer.version, proxies: [proxy], client, target, guarded: target });
  }
  const load = handshakeLoad(testbed, { credentials, connections: options.connections });
  return [{ name: 'handshake', performances: await runRounds({ ...options, scenario: 'handshake', deployments, load, inspect: ask }) }];
}
