// Control as a service: a source of objects, resolved into a cache, served by delta ADS on a socket that only root may open and, where nodes are
// elsewhere, on a TLS port that only agents may use.

import { ResourceCache } from '../discovery/resource-cache.ts';
import { HandfastError, messageOf } from '../errors.ts';
import type { WatchableKubeApi } from '../kube/api.ts';
import { MeshNode, type MeshNodeOptions } from '../node/mesh-node.ts';
import type { Log } from '../observe/log.ts';
import type { Selections } from '../policy/policy-object.ts';
import { Snapshot } from '../snapshot.ts';
import { revocationOf } from '../spiffe/crl.ts';
import { chooseHttp2 } from '../tls/alpn.ts';
import { Terminator } from '../tls/terminate.ts';
import { newServer, stopServer } from '../wire/grpc.ts';
import { listenTls, listenUnix } from '../wire/grpc-listener.ts';
import { isUnixAddress } from '../wire/grpc-target.ts';
import { checkMember } from '../wire/mesh-member.ts';
import { serveOperators } from '../wire/operator-server.ts';
import { serveMetrics } from './control-metrics.ts';
import { type RunningController, startController } from './controller.ts';
import { explainRoute } from './explain/explain-route.ts';
import { IssuerKeys } from './keys/issuer-keys.ts';
import { alone, type Leadership, oneOfSeveral, type SharedState } from './leadership.ts';
import { ledgerRoutes } from './ledger/ledger-routes.ts';
import { LedgerStore } from './ledger/ledger-store.ts';
import { MeshLedger } from './ledger/mesh-ledger.ts';
import { registeredIds } from './ledger/registered-ids.ts';
import { DirectorySource } from './objects/directory-source.ts';
import { KubeSource } from './objects/kube-source.ts';
import type { EffectiveObjects, MeshObjects, ObjectSource } from './objects/mesh-objects.ts';
import { showReach } from './reach-status.ts';
import { RolloutStore } from './rollout/rollout-store.ts';
import { Rollouts } from './rollout/rollouts.ts';
import { secretsRoute } from './secrets/secrets-route.ts';
import { type SecretsOptions, startSecrets } from './secrets/start-secrets.ts';
import { addControlServices } from './server.ts';
import type { StageTimes } from './staged-switches.ts';

/** Where registry and policy stand: a directory of YAML, or a Kubernetes API server. */
export type ObjectsFrom = { readonly directory: string } | { readonly kube: WatchableKubeApi };

export interface ControlOptions {
  readonly objects: ObjectsFrom;
  readonly socket: string;
  readonly operatorSocket: string;
  readonly trustDomain: string;
  /** Where the mesh's ledger and the states of rollouts outlive control; without it, they do not. */
  readonly stateDir: string | undefined;
  /** Of several controls of one cluster: instead of `stateDir`. */
  readonly shared?: SharedState | undefined;
  /** For agents elsewhere; then control is a node itself and needs the CA. */
  readonly listen?: { readonly host: string; readonly port: number; readonly node: MeshNodeOptions };
  /** Whether sidecars without an agent are served too, on `listen`. */
  readonly servesSidecars?: boolean;
  /** Secrets for workloads; without it there are none. */
  readonly secrets?: SecretsOptions | undefined;
  /** For Prometheus. */
  readonly metrics?: { readonly host: string; readonly port: number } | undefined;
  /** How long each stage of a switch that clients must follow lasts; long enough for a big mesh unless told otherwise. */
  readonly stages?: StageTimes;
  /** Gives up waiting for what it needs to begin. */
  readonly signal?: AbortSignal;
  readonly log: Log;
  readonly now: () => number;
}

/** A sidecar waits a moment for its caller's name, and reports once a second; so does its agent. */
const REPORTS_WITHIN_MS = 4_000;
const HANDSHAKE_TIMEOUT_MS = 10_000;
/** An agent has three: what it follows, and what it reports of now and of before. */
const MAX_STREAMS = 16;
/** All pods of one workload are one caller, on some connections each. */
const MAX_OF_WORKLOAD = 4_096;

export interface RunningControl {
  /** Of the TLS listener; 0 without one. */
  readonly port: number;
  stop(): Promise<void>;
}

/** Throws OBJECT_INVALID when the directory cannot be used to begin with; waits for an API server until the signal aborts. Serves until `stop` is called. */
export async function startControl(options: ControlOptions): Promise<RunningControl> {
  const { log, trustDomain, now } = options;
  const running: (() => unknown)[] = [];
  const stop = async () => {
    for (const end of running.reverse()) await end();
  };
  try {
    const watching = new AbortController();
    running.push(() => watching.abort());
    options.signal?.addEventListener('abort', () => watching.abort(), { once: true });
    const leadership = options.shared === undefined ? alone(options.stateDir) : oneOfSeveral(options.shared, options);
    const source = await followObjects({ ...options, leadership }, watching.signal);
    const cache = new ResourceCache();
    const registeredId = registeredIds(source, trustDomain);
    const ledger = new MeshLedger({ now, registeredId });
    const lead = prepareToLead(leadership);
    // Ended after everything that only who leads may write.
    running.push(() => lead.end());
    const kept = leadership.kept('mesh-ledger');
    if (kept !== undefined) {
      const store = new LedgerStore({ kept, everyMs: leadership.saveEveryMs, isOurs: leadership.leads, ledger, log, now });
      await store.start(watching.signal);
      void leadership.follow('mesh-ledger', () => void store.readAgain(), watching.signal);
      running.push(() => store.stop());
    }
    let controller: RunningController | undefined;
    const rollouts = new Rollouts({
      ...options,
      source,
      reportsWithinMs: REPORTS_WITHIN_MS,
      store: new RolloutStore(leadership.kept('rollouts')),
      isOurs: leadership.leads,
      totals: (pods, direction) => ledger.totals(pods, direction),
      inForce: (pods) => controller !== undefined && pods.every((pod) => controller?.isInForce(pod) === true),
    });
    await rollouts.start(watching.signal);
    void leadership.follow('rollouts', () => void rollouts.readAgain(), watching.signal);
    const issuers = new IssuerKeys({ loopback: 'directory' in options.objects, log, signal: watching.signal });
    follow(rollouts.effective, ({ objects }) => issuers.replace(objects));
    controller = startController({ ...options, effective: rollouts.effective, keys: issuers.keys, cache, signal: watching.signal });
    const { isInForce, expectedDigest } = controller;
    const asked = askedOf(rollouts.effective);
    const server = newServer({ maxStreams: MAX_STREAMS });
    const secrets =
      options.secrets === undefined
        ? undefined
        : await startSecrets(options.secrets, { trustDomain, lease: leadership.lease, log, now }, watching.signal);
    running.push(() => secrets?.stop());
    const isInTouch = () => !(source instanceof KubeSource) || (source.isInTouch && secrets?.source.isInTouch !== false);
    const { reports, receipts } = addControlServices(server, {
      cache,
      ledger,
      trustDomain,
      servesSidecars: options.servesSidecars ?? false,
      secrets,
      // With nobody else to ask, what we know is the best there is.
      isInTouch: leadership.lease === undefined ? () => true : isInTouch,
      log,
      now,
    });
    running.push(() => stopServer(server));
    if (source instanceof KubeSource)
      showReach(source, {
        leadership,
        effective: rollouts.effective,
        madeOf: () => rollouts.madeOf,
        reports,
        expectedDigest,
        registeredId,
        signal: watching.signal,
      });
    const onRefused = (refusal: object) => log.warn(refusal, 'connection refused');
    const unix = await listenUnix({ server, path: options.socket, mode: 0o600, takeOver: false, onRefused });
    running.push(() => unix.close());
    const port =
      options.listen === undefined ? 0 : await listenForAgents(server, { ...options, listen: options.listen, onRefused, running });
    const operators = await serveOperators({
      path: options.operatorSocket,
      takeOver: false,
      routes: [
        { method: 'GET', path: '/connections', handle: () => ({ reports: reports.all }) },
        { method: 'GET', path: '/replica', handle: () => ({ leads: leadership.leads() }) },
        { method: 'GET', path: '/rollouts', handle: () => ({ rollouts: rollouts.states }) },
        secretsRoute({ world: () => secrets?.source.world.current, receipts: () => receipts.all }),
        explainRoute({ ...asked, trustDomain, isInForce }),
        ...ledgerRoutes({ ...asked, ledger, trustDomain, now }),
      ],
    });
    running.push(() => operators.close());
    if (options.metrics !== undefined) {
      const metrics = await serveMetrics(
        options.metrics,
        {
          leads: leadership.leads,
          inTouch: isInTouch,
          objects: () => source.objects.current,
          refused: () => source.refused,
          connected: () => reports.all.length,
          rollouts: () => rollouts.states,
        },
        (error) => log.warn({ reason: messageOf(error) }, 'metrics not served'),
      ).catch((cause) => {
        throw new HandfastError('CONFIG_INVALID', `cannot listen for metrics: ${messageOf(cause)}`, { cause });
      });
      running.push(() => metrics.close());
    }
    lead.begin();
    log.info(
      { socket: options.socket, port, objects: 'kube' in options.objects ? 'kubernetes' : options.objects.directory },
      'control listening',
    );
    return { port, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function followObjects(
  { objects: from, leadership, log, now }: Pick<ControlOptions, 'objects' | 'log' | 'now'> & { leadership: Leadership },
  signal: AbortSignal,
): Promise<KubeSource | DirectorySource> {
  const source =
    'kube' in from
      ? new KubeSource({ api: from.kube, lease: leadership.lease, log, now })
      : new DirectorySource({ dir: from.directory, log });
  await source.start(signal);
  return source;
}

/** What is, and whatever comes. */
function follow<T>(snapshot: Snapshot<T>, hear: (value: T) => void): void {
  if (snapshot.current !== undefined) hear(snapshot.current);
  snapshot.subscribe(hear);
}

/** Takes part in who leads from `begin`, when everything is there that whoever leads must do, until `end`. */
function prepareToLead({ lease }: Leadership): { begin(): void; end(): Promise<void> } {
  const stopping = new AbortController();
  let running: Promise<void> = Promise.resolve();
  return {
    begin: () => {
      running = lease?.run(stopping.signal) ?? running;
    },
    end: async () => {
      stopping.abort();
      await running;
    },
  };
}

/** What questions are about: the objects and rollouts that are in force. */
function askedOf(effective: Snapshot<EffectiveObjects>): { source: ObjectSource; selections: Snapshot<Selections> } {
  const objects = new Snapshot<MeshObjects>(effective.current?.objects);
  const selections = new Snapshot<Selections>(effective.current?.selections);
  effective.subscribe((next) => {
    selections.replace(next.selections);
    objects.replace(next.objects);
  });
  return { source: { objects }, selections };
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
    ...(of.servesSidecars === true || of.secrets !== undefined ? { maxPerCaller: MAX_OF_WORKLOAD } : {}),
    wallClock: of.now,
  });
  of.running.push(() => listener.close());
  const unsubscribe = trust.subscribe(({ crl }) => {
    listener.cut((caller) => caller.kind === 'tls' && revocationOf(caller.peer, crl) !== undefined);
  });
  of.running.push(() => unsubscribe());
  return listener.port;
}
