// Control as a service: a source of objects, resolved into a cache, served by delta ADS on a socket that only root may open and, where nodes are
// elsewhere, on a TLS port that only agents may use.

import { ResourceCache } from '../discovery/resource-cache.ts';
import { HandfastError } from '../errors.ts';
import { MeshNode, type MeshNodeOptions } from '../node/mesh-node.ts';
import type { Log } from '../observe/log.ts';
import { revocationOf } from '../spiffe/crl.ts';
import { chooseHttp2 } from '../tls/alpn.ts';
import { Terminator } from '../tls/terminate.ts';
import { newServer, stopServer } from '../wire/grpc.ts';
import { listenTls, listenUnix } from '../wire/grpc-listener.ts';
import { isUnixAddress } from '../wire/grpc-target.ts';
import { checkMember } from '../wire/mesh-member.ts';
import { serveOperators } from '../wire/operator-server.ts';
import { startController } from './controller.ts';
import { DirectorySource } from './directory-source.ts';
import { addControlServices } from './server.ts';

export interface ControlOptions {
  /** Directory of YAML objects. */
  readonly configDir: string;
  readonly socket: string;
  readonly operatorSocket: string;
  readonly trustDomain: string;
  /** For agents elsewhere; then control is a node itself and needs the CA. */
  readonly listen?: { readonly host: string; readonly port: number; readonly node: MeshNodeOptions };
  readonly log: Log;
  readonly now: () => number;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** An agent has two: what it follows, and what it reports. */
const MAX_STREAMS = 16;

export interface RunningControl {
  /** Of the TLS listener; 0 without one. */
  readonly port: number;
  stop(): Promise<void>;
}

/** Throws OBJECT_INVALID when the directory cannot be used to begin with. Serves until `stop` is called. */
export async function startControl(options: ControlOptions): Promise<RunningControl> {
  const { log } = options;
  const running: (() => unknown)[] = [];
  const stop = async () => {
    for (const end of running.reverse()) await end();
  };
  try {
    const watching = new AbortController();
    running.push(() => watching.abort());
    const source = new DirectorySource({ dir: options.configDir, log });
    await source.start(watching.signal);
    const cache = new ResourceCache();
    startController({ source, cache, trustDomain: options.trustDomain, log, signal: watching.signal });
    const server = newServer({ maxStreams: MAX_STREAMS });
    const reports = addControlServices(server, { cache, trustDomain: options.trustDomain, log, now: options.now });
    running.push(() => stopServer(server));
    const onRefused = (refusal: object) => log.warn(refusal, 'connection refused');
    const unix = await listenUnix({ server, path: options.socket, mode: 0o600, takeOver: false, onRefused });
    running.push(() => unix.close());
    const port =
      options.listen === undefined ? 0 : await listenForAgents(server, { ...options, listen: options.listen, onRefused, running });
    const operators = await serveOperators({
      path: options.operatorSocket,
      takeOver: false,
      routes: [{ method: 'GET', path: '/connections', handle: () => ({ reports: reports.all }) }],
    });
    running.push(() => operators.close());
    log.info({ socket: options.socket, port, configDir: options.configDir }, 'control listening');
    return { port, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function listenForAgents(
  server: ReturnType<typeof newServer>,
  of: ControlOptions & { listen: NonNullable<ControlOptions['listen']>; onRefused: (refusal: object) => void; running: (() => unknown)[] },
): Promise<number> {
  const { host, port, node: nodeOptions } = of.listen;
  if (isUnixAddress(nodeOptions.ca))
    throw new HandfastError('CONFIG_INVALID', '--listen needs a certificate: give --ca HOST:PORT, --trust-bundle and --join-token-file');
  const node = await MeshNode.start(nodeOptions);
  of.running.push(() => node.stop());
  node.followTrust(() => Promise.resolve());
  const { trust } = node.trust;
  const revocations = () => {
    const { crl, crlPem } = trust.current ?? {};
    if (crl === undefined || crlPem === undefined) throw new HandfastError('NO_IDENTITY', 'no revocation list has come from the CA yet');
    return crl;
  };
  const terminator = new Terminator({
    handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
    chooseAlpn: chooseHttp2,
    revocations,
    now: of.now,
  });
  if (node.identity.current !== undefined) terminator.replace(node.identity.current);
  node.identity.subscribe((next) => terminator.replace(next));
  const listener = await listenTls({
    server,
    host,
    port,
    terminator,
    judge: (caller) => {
      if (caller.kind === 'tls') checkMember(caller.peer, { trustDomain: of.trustDomain, revocations: revocations() });
    },
    onRefused: of.onRefused,
    wallClock: of.now,
  });
  of.running.push(() => listener.close());
  const unsubscribe = trust.subscribe(({ crl }) => {
    listener.cut((caller) => caller.kind === 'tls' && revocationOf(caller.peer, crl) !== undefined);
  });
  of.running.push(() => unsubscribe());
  return listener.port;
}
