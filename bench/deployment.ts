// A contender, deployed: pods and backends (a Site), and the proxies that run there (a Deployment).

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pod } from '../test/support/namespaces.ts';
import { BACKEND_PORT } from './backend.ts';
import type { Build } from './build.ts';
import { type Credentials, issueLeaf } from './certificates.ts';
import type { Group } from './client-tls.ts';
import { type Mesh, startMesh } from './mesh.ts';
import type { Findings, Guarded } from './outsider.ts';
import { dialingPort, HBONE_PORT, type Launch, type Peer, servingPort } from './peers/peer.ts';
import { type Contender, isOurs } from './scenario.ts';
import { type Running, script, type Testbed, until } from './testbed.ts';

export interface Site {
  readonly contender: Contender;
  readonly version: string;
  /** Outside the mesh: where strangers ask, and with `credentials` a client that is let in. */
  readonly outsider: Pod;
  readonly credentials: Credentials;
  readonly group: Group;
  /** Where the application's client runs, and what it dials there. */
  readonly client: Pod;
  readonly target: { readonly host: string; readonly port: number };
  /** Where the serving proxy takes mTLS, as seen from outside. */
  readonly guarded: Guarded;
  /** Where it takes tunnels beside that. */
  readonly tunnel?: Guarded;
  startServing(): Promise<Running>;
  startDialing(): Promise<Running>;
}

/** `proxies`: the dialing one first, where there are two. */
export interface Deployment {
  readonly site: Site;
  readonly proxies: readonly Running[];
  readonly pids: readonly number[];
}

export interface SitesOptions {
  /** Of the mesh, unique in its testbed. */
  readonly name: string;
  readonly build: Build;
  readonly contenders: readonly Contender[];
  readonly peers: readonly Peer[];
  readonly version: string;
  readonly group: Group;
  readonly rotateEvery?: string;
}

const START_UP_MS = 20_000;

/** Lays out everything but the proxies: a mesh for ours, and certificates of the same CA for the others. */
export async function createSites(testbed: Testbed, options: SitesOptions): Promise<Site[]> {
  const { name, build, contenders, peers, version, group } = options;
  const places: { contender: Contender; client: Pod; server: Pod }[] = [];
  const outsider = await testbed.addPod(`${name}-outsider`);
  for (const contender of contenders)
    places.push({ contender, client: await testbed.addPod(`${contender}-client`), server: await testbed.addPod(`${contender}-server`) });
  const ours = places.filter(({ contender }) => isOurs(contender));
  const mesh = await startMesh(testbed, {
    name,
    build,
    ...(options.rotateEvery === undefined ? {} : { rotateEvery: options.rotateEvery }),
    pods: ours.flatMap(({ contender, client, server }) =>
      [client, server].map((pod) => ({ pod, tunnel: takesTunnels(contender), http: contender === 'handfast-http' })),
    ),
  });
  const leaf = (of: string, server: boolean) => issueLeaf({ name: of, server, caDir: mesh.caDir, dir: testbed.directory });
  const credentials = await leaf(outsider.name, false);

  const sites: Site[] = [];
  for (const { contender, client, server } of places) {
    testbed.start(server, script('backend.ts', {}), { name: `${server.name}-backend`, on: 'load' });
    const common = { contender, outsider, credentials, group, client };
    if (isOurs(contender)) sites.push({ ...common, version, ...(await ourSite(mesh, { contender, client, server, group })) });
    const peer = peers.find((candidate) => candidate.name === contender);
    if (peer === undefined) continue;
    const start = async (pod: Pod, launch: Launch, configFile: string) => {
      if (launch.config !== undefined) await writeFile(configFile, launch.config);
      return testbed.start(pod, launch.command, { name: pod.name, on: 'proxy' });
    };
    const configFile = (pod: Pod) => join(testbed.directory, `${pod.name}.conf`);
    const [servingLeaf, dialingLeaf] = [await leaf(server.name, true), await leaf(client.name, false)];
    sites.push({
      ...common,
      version: peer.version,
      target: { host: '127.0.0.1', port: dialingPort },
      guarded:
        peer.tunnels === undefined
          ? { host: server.ipv4, port: servingPort }
          : { host: server.ipv4, port: HBONE_PORT, authority: `${server.ipv4}:${BACKEND_PORT}` },
      startServing: () =>
        start(server, peer.serving({ credentials: servingLeaf, configFile: configFile(server), group }), configFile(server)),
      async startDialing() {
        const launch = peer.dialing?.({ credentials: dialingLeaf, configFile: configFile(client), group, to: server.ipv4 });
        if (launch === undefined) throw new Error(`${peer.name} has no client side`);
        return start(client, launch, configFile(client));
      },
    });
  }
  return sites;
}

async function ourSite(mesh: Mesh, of: { contender: Contender; client: Pod; server: Pod; group: Group }) {
  const { client, server, group } = of;
  await mesh.capture(client);
  await mesh.capture(server);
  const as = { group, workers: of.contender === 'handfast-workers2' ? 2 : 1 };
  return {
    // Captured on its way to the service, and again on its way into the server's pod.
    target: mesh.service(server),
    guarded: { host: server.ipv4, port: BACKEND_PORT },
    ...(takesTunnels(of.contender) ? { tunnel: { host: server.ipv4, port: HBONE_PORT, authority: `${server.ipv4}:${BACKEND_PORT}` } } : {}),
    startServing: () => mesh.startSidecar(server, as),
    startDialing: () => mesh.startSidecar(client, as),
  };
}

/** Ours without tunnels has a TLS session for each connection. */
function takesTunnels(contender: Contender): boolean {
  return contender !== 'handfast-direct';
}

/** Starts the proxies and waits until bytes go through them. */
export async function deploy(testbed: Testbed, site: Site, of: { pair: boolean }): Promise<Deployment> {
  const deployment = await startProxies(site, of);
  await awaitWorking(testbed, deployment);
  return deployment;
}

/** Starts the proxies and waits for nothing. */
export async function startProxies(site: Site, of: { pair: boolean }): Promise<Deployment> {
  const serving = await site.startServing();
  const proxies = of.pair ? [await site.startDialing(), serving] : [serving];
  return { site, proxies, pids: proxies.map(({ pid }) => pid) };
}

/** Rejects, and stops the proxies, when they do not work in time. */
export async function awaitWorking(testbed: Testbed, { site, proxies }: Deployment): Promise<void> {
  try {
    await until(() => inspect(testbed, site), { timeoutMs: START_UP_MS, running: proxies });
    const probe = script('first-byte.ts', { ...site.target, timeoutMs: START_UP_MS });
    if (proxies.length > 1) await testbed.run(site.client, probe, START_UP_MS + 5_000);
  } catch (error) {
    const died = proxies.map((proxy) => proxy.died()).find((reason) => reason !== undefined);
    await Promise.all(proxies.map((proxy) => proxy.stop()));
    throw died === undefined ? error : new Error(died, { cause: error });
  }
}

/** Asks whether the serving proxy lets the right client in and nobody else. Throws when even the right one does not get in. */
export async function inspect(testbed: Testbed, { outsider, credentials, guarded, tunnel, group }: Site): Promise<Findings> {
  const ports = tunnel === undefined ? [guarded] : [guarded, tunnel];
  return JSON.parse(await testbed.run(outsider, script('outsider.ts', { ports, credentials, group }), 20_000)) as Findings;
}
