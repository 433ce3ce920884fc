// sleep.foo and httpbin.bar, each behind a sidecar of several worker threads: over HBONE, with an application behind the second.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { BroadcastChannel } from 'node:worker_threads';
import { encodeAuthorization } from '../../src/discovery/authorization-codec.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { encodeTrafficPolicy, encodeWorkload } from '../../src/discovery/workload-codec.ts';
import { authorizationKey } from '../../src/policy/authorization.ts';
import type { TrafficPolicy } from '../../src/policy/model.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { noRevocations, type RevocationList } from '../../src/spiffe/crl.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { SidecarWorkers, type SidecarWorkersOptions } from '../../src/workers/sidecar-workers.ts';
import { Application, type LogRecord, type MeshSpec, meshOf, nobodyAsked, RecordingLog, uidOf } from './sidecar-harness.ts';
import type { Order, WorkerTestSettings } from './workers-entry.ts';

export interface WorkersSetup
  extends Partial<
    Pick<SidecarWorkersOptions, 'workers' | 'interests' | 'drainTimeoutMs' | 'maxOldGenerationSizeMb' | 'ports' | 'sightings'>
  > {
  readonly namespace: string;
  readonly name: string;
  readonly identity?: Identity;
  readonly awaitRevocations?: boolean;
  readonly test: Omit<WorkerTestSettings, 'channel'>;
}

export class RunningWorkers implements AsyncDisposable {
  readonly records: RecordingLog;
  readonly identity: Snapshot<Identity>;
  readonly revocations: Snapshot<RevocationList>;
  readonly workers: SidecarWorkers;
  readonly #channel: BroadcastChannel;

  private constructor(of: Pick<RunningWorkers, 'records' | 'identity' | 'revocations' | 'workers'>, channel: BroadcastChannel) {
    this.records = of.records;
    this.identity = of.identity;
    this.revocations = of.revocations;
    this.workers = of.workers;
    this.#channel = channel;
  }

  static async start(setup: WorkersSetup): Promise<RunningWorkers> {
    const records = new RecordingLog();
    const identity = new Snapshot<Identity>(setup.identity);
    const revocations = new Snapshot<RevocationList>(setup.awaitRevocations === true ? undefined : noRevocations);
    const channel = new BroadcastChannel(randomUUID());
    const settings = {
      podName: setup.name,
      podNamespace: setup.namespace,
      workloadUid: uidOf(`${setup.namespace}/${setup.name}`),
      dialTimeoutMs: 5_000,
      handshakeTimeoutMs: 5_000,
      sniffSilenceMs: 50,
      halfCloseTimeoutMs: 60_000,
      passthroughSource: { v4: '127.0.0.6', v6: '::1' },
      forwardClientCert: 'SANITIZE_SET' as const,
      test: { ...setup.test, channel: channel.name } satisfies WorkerTestSettings,
    };
    const workers = await SidecarWorkers.start({
      workers: setup.workers ?? 2,
      settings,
      ports: setup.ports ?? { inbound: 0, outbound: 0, tunnel: 0, readiness: 0 },
      drainTimeoutMs: setup.drainTimeoutMs ?? 200,
      identity,
      revocations,
      interests: setup.interests ?? nobodyAsked,
      log: records.log,
      logLevel: 'debug',
      writeLog: (lines) =>
        records.records.push(
          ...lines
            .trimEnd()
            .split('\n')
            .map((line): LogRecord => JSON.parse(line)),
        ),
      now: Date.now,
      entry: new URL('./workers-entry.ts', import.meta.url),
      ...(setup.sightings === undefined ? {} : { sightings: setup.sightings }),
      ...(setup.maxOldGenerationSizeMb === undefined ? {} : { maxOldGenerationSizeMb: setup.maxOldGenerationSizeMb }),
    }).catch((error: unknown) => {
      channel.close();
      throw error;
    });
    return new RunningWorkers({ records, identity, revocations, workers }, channel);
  }

  /** Puts a mesh in force. Services are not encoded. */
  replace(spec: MeshSpec): void {
    const { registry, policies } = meshOf(spec);
    const all = (entries: Iterable<readonly [string, Uint8Array]>) => ({ upserts: new Map(entries), removed: [] });
    const workloads = all([...registry.workloads()].map((workload) => [workload.uid, encodeWorkload(workload)]));
    this.workers.apply(typeUrls.address, { ...workloads, answered: ['127.0.0.1'] });
    this.workers.apply(
      typeUrls.authorization,
      all((spec.authorizations ?? []).map((policy) => [authorizationKey(policy), encodeAuthorization(policy)])),
    );
    const encoded = [...(policies as ReadonlyMap<string, TrafficPolicy>)].map(
      ([uid, policy]) => [uid, encodeTrafficPolicy(policy)] as const,
    );
    this.workers.apply(typeUrls.trafficPolicy, all(encoded));
  }

  kill(order: Order): void {
    this.#channel.postMessage(order);
  }

  async readiness(): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${this.workers.ports.readiness}/healthz/ready`);
    return response.text();
  }

  async ready(): Promise<void> {
    await eventually(async () => (await this.readiness()) === 'ready\n');
  }

  /** How many connections of a direction each worker has recorded. */
  recorded(direction: 'inbound' | 'outbound'): Map<unknown, number> {
    const counts = new Map<unknown, number>();
    for (const { msg, worker, direction: of } of this.records.records)
      if (msg === 'connection' && of === direction) counts.set(worker, (counts.get(worker) ?? 0) + 1);
    return counts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.workers.stop();
    this.#channel.close();
  }
}

export interface WorkersPair extends AsyncDisposable {
  readonly client: RunningWorkers;
  readonly server: RunningWorkers;
  readonly application: Application;
  readonly spec: (server?: Partial<MeshSpec['workloads'][number]>, rest?: Partial<MeshSpec>) => MeshSpec;
  replace(spec: MeshSpec): void;
  dial(): Socket;
  /** An open connection that has carried something. */
  open(): Promise<Socket>;
}

/** Ready when it resolves. */
export async function startWorkersPair(of: {
  readonly identities: { readonly client: Identity; readonly server: Identity };
  readonly client?: Partial<WorkersSetup>;
  readonly server?: Partial<WorkersSetup>;
}): Promise<WorkersPair> {
  const application = await Application.start();
  const destination = application.endpoint;
  const test = { destination, tunnelPort: 0 };
  const server = await RunningWorkers.start({ namespace: 'bar', name: 'httpbin', identity: of.identities.server, test, ...of.server });
  const client = await RunningWorkers.start({
    namespace: 'foo',
    name: 'sleep',
    identity: of.identities.client,
    test: { destination, tunnelPort: server.workers.ports.tunnel },
    ...of.client,
  });
  const spec: WorkersPair['spec'] = (serverWorkload = {}, rest = {}) => ({
    workloads: [
      { namespace: 'foo', name: 'sleep' },
      { namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'], hbone: true, ...serverWorkload },
    ],
    ...rest,
  });
  const replace = (mesh: MeshSpec) => {
    for (const side of [server, client]) side.replace(mesh);
  };
  const dial = () => {
    const socket = connect({ port: client.workers.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });
    socket.on('error', () => undefined);
    return socket;
  };
  replace(spec());
  await Promise.all([server.ready(), client.ready()]);
  return {
    client,
    server,
    application,
    spec,
    replace,
    dial,
    open: async () => {
      const socket = dial();
      socket.write('hello');
      await Promise.race([once(socket, 'data'), once(socket, 'close').then(() => Promise.reject(new Error('closed')))]);
      return socket;
    },
    [Symbol.asyncDispose]: async () => {
      await client[Symbol.asyncDispose]();
      await server[Symbol.asyncDispose]();
      await application[Symbol.asyncDispose]();
    },
  };
}

/** Looks until it holds. Rejects after 10 s. */
export async function eventually(holds: () => boolean | Promise<boolean>): Promise<void> {
  const until = performance.now() + 10_000;
  while (!(await holds())) {
    if (performance.now() > until) throw new Error('what was waited for did not happen within 10 s');
    await delay(20);
  }
}

export const closed = (socket: Socket): Promise<void> =>
  socket.destroyed ? Promise.resolve() : new Promise((resolve) => socket.once('close', () => resolve()));
