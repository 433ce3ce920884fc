// Sidecars on loopback without iptables: the original destination is handed in, everything else is the real thing.

import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { type Logger, pino } from 'pino';
import type { SightingSink } from '../../src/observe/ledger.ts';
import type { Authorization } from '../../src/policy/authorization.ts';
import { Authorizations } from '../../src/policy/authorizations.ts';
import type { JwtRule } from '../../src/policy/jwt-rule.ts';
import type { MeshSnapshot } from '../../src/policy/mesh-snapshot.ts';
import type { ClientTlsSettings, Endpoint, MutualTlsMode, Service, TrafficPolicy, Workload } from '../../src/policy/model.ts';
import { Registry } from '../../src/policy/registry.ts';
import type { AddressInterests, PipelineSettings } from '../../src/proxy/context.ts';
import { Sidecar } from '../../src/proxy/sidecar.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { noRevocations, type RevocationList } from '../../src/spiffe/crl.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';

export type LogRecord = Readonly<Record<string, unknown>> & { readonly msg?: string };

/** A log whose records can be read and awaited. */
export class RecordingLog {
  readonly records: LogRecord[] = [];
  readonly log: Logger;
  readonly #waiting = new Set<() => void>();

  constructor() {
    this.log = pino(
      { level: 'debug', base: null, formatters: { level: (level) => ({ level }) } },
      {
        write: (line: string) => {
          this.records.push(JSON.parse(line));
          for (const wake of [...this.#waiting]) wake();
        },
      },
    );
  }

  /** The first record that matches, now or later. Rejects after 10 s. */
  async find(matches: (record: LogRecord) => boolean): Promise<LogRecord> {
    return until(
      () => this.records.find(matches),
      (wake) => {
        this.#waiting.add(wake);
        return () => this.#waiting.delete(wake);
      },
    );
  }

  /** Resolves once the condition holds; looked at after each record. */
  async quiet(holds: () => boolean): Promise<void> {
    await until(
      () => (holds() ? true : undefined),
      (wake) => {
        this.#waiting.add(wake);
        return () => this.#waiting.delete(wake);
      },
    );
  }

  /** The record of the n-th connection (from 1) of a direction to end. */
  async connection(direction: 'inbound' | 'outbound', nth = 1): Promise<LogRecord> {
    return until(
      () => this.records.filter((record) => record.msg === 'connection' && record.direction === direction)[nth - 1],
      (wake) => {
        this.#waiting.add(wake);
        return () => this.#waiting.delete(wake);
      },
    );
  }
}

async function until<T>(check: () => T | undefined, subscribe: (wake: () => void) => () => void): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      unsubscribe();
      reject(new Error('what was waited for did not happen within 10 s'));
    }, 10_000);
    const look = () => {
      const found = check();
      if (found === undefined) return;
      clearTimeout(timer);
      unsubscribe();
      resolve(found);
    };
    const unsubscribe = subscribe(look);
    look();
  });
}

/** Of the harness's pods, unless told otherwise. */
export const uidOf = (pod: string) => `test//Pod/${pod}`;

export interface SidecarSetup {
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount?: string;
  readonly identity?: Identity;
  /** Wait for the first revocation list; by default nothing is revoked. */
  readonly awaitRevocations?: boolean;
  readonly settings?: Partial<PipelineSettings>;
  readonly drainTimeoutMs?: number;
  readonly tunnelPortOf?: (address: string) => number;
  readonly now?: () => number;
  /** Default: nobody is asked, as in a mesh that is known as a whole. */
  readonly interests?: AddressInterests;
  /** Default: the ledger of its tracker. */
  readonly sightings?: SightingSink;
}

/** A running sidecar and what a test turns: identity, mesh, and where the next connections "were going". */
export interface RunningSidecar extends AsyncDisposable {
  readonly sidecar: Sidecar;
  readonly identity: Snapshot<Identity>;
  readonly revocations: Snapshot<RevocationList>;
  readonly mesh: Snapshot<MeshSnapshot>;
  readonly records: RecordingLog;
  destination: Endpoint | undefined;
  /** Of inbound connections alone, where it is another. */
  inboundDestination: Endpoint | undefined;
  /** Resolves when every connection has ended, and forgets the records: the next test's are its own. */
  settled(): Promise<void>;
}

/** For a mesh that is known as a whole. */
export const nobodyAsked: AddressInterests = { hold: () => () => undefined, ask: () => undefined };

export async function startSidecar(setup: SidecarSetup): Promise<RunningSidecar> {
  const records = new RecordingLog();
  const identity = new Snapshot<Identity>(setup.identity);
  const revocations = new Snapshot<RevocationList>(setup.awaitRevocations === true ? undefined : noRevocations);
  const mesh = new Snapshot<MeshSnapshot>();
  const running: { destination: Endpoint | undefined; inbound: Endpoint | undefined } = { destination: undefined, inbound: undefined };
  const sidecar: Sidecar = await Sidecar.start({
    settings: {
      podName: setup.name,
      podNamespace: setup.namespace,
      workloadUid: uidOf(`${setup.namespace}/${setup.name}`),
      dialTimeoutMs: 5_000,
      handshakeTimeoutMs: 5_000,
      sniffSilenceMs: 50,
      halfCloseTimeoutMs: 60_000,
      passthroughSource: { v4: '127.0.0.6', v6: '::1' },
      forwardClientCert: 'SANITIZE_SET',
      ...setup.settings,
    },
    ports: { inbound: 0, outbound: 0, tunnel: 0, readiness: 0 },
    ...(setup.tunnelPortOf === undefined ? {} : { tunnelPortOf: setup.tunnelPortOf }),
    ...(setup.sightings === undefined ? {} : { sightings: setup.sightings }),
    drainTimeoutMs: setup.drainTimeoutMs ?? 200,
    identity,
    revocations,
    mesh,
    interests: setup.interests ?? nobodyAsked,
    originalDestination: ({ localPort }) =>
      localPort === sidecar.ports.inbound ? (running.inbound ?? running.destination) : running.destination,
    log: records.log,
    now: setup.now ?? Date.now,
  });
  return {
    sidecar,
    identity,
    revocations,
    mesh,
    records,
    get destination() {
      return running.destination;
    },
    set destination(endpoint) {
      running.destination = endpoint;
    },
    get inboundDestination() {
      return running.inbound;
    },
    set inboundDestination(endpoint) {
      running.inbound = endpoint;
    },
    settled: async () => {
      await records.quiet(() => sidecar.tracker.size === 0);
      records.records.length = 0;
    },
    [Symbol.asyncDispose]: () => sidecar.stop(),
  };
}

export interface MeshSpec {
  readonly workloads: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly serviceAccount?: string;
    readonly trustDomain?: string;
    readonly addresses?: readonly string[];
    readonly meshed?: boolean;
    readonly hbone?: boolean;
    readonly mode?: MutualTlsMode;
    readonly portModes?: Readonly<Record<number, MutualTlsMode>>;
    readonly outbound?: TrafficPolicy['outbound'];
    /** Whose requests are read. */
    readonly httpPorts?: readonly number[];
    readonly jwtRules?: readonly JwtRule[];
    readonly shadow?: MutualTlsMode;
    readonly announced?: MutualTlsMode;
    readonly clientTls?: TrafficPolicy['clientTls'];
    /** Service key to [service port, target port]. */
    readonly services?: Readonly<Record<string, readonly [number, number]>>;
  }[];
  readonly services?: readonly {
    readonly namespace: string;
    readonly name: string;
    readonly address: string;
    readonly subjectAltNames?: readonly string[];
    readonly clientTls?: ClientTlsSettings;
  }[];
  readonly authorizations?: readonly Authorization[];
}

export function meshOf(spec: MeshSpec): MeshSnapshot {
  const workloads: Workload[] = spec.workloads.map((entry) => ({
    uid: uidOf(`${entry.namespace}/${entry.name}`),
    name: entry.name,
    namespace: entry.namespace,
    identity: parseSpiffeId(
      `spiffe://${entry.trustDomain ?? 'cluster.local'}/ns/${entry.namespace}/sa/${entry.serviceAccount ?? entry.name}`,
    ),
    addresses: entry.addresses ?? [],
    meshed: entry.meshed ?? true,
    hbone: entry.hbone ?? false,
    healthy: true,
    services: new Map(Object.entries(entry.services ?? {}).map(([key, [servicePort, targetPort]]) => [key, [{ servicePort, targetPort }]])),
    authorizationPolicies: [],
  }));
  const services: Service[] = (spec.services ?? []).map((service) => ({
    key: `${service.namespace}/${service.name}`,
    name: service.name,
    namespace: service.namespace,
    hostname: service.name,
    addresses: [service.address],
    ports: [],
    subjectAltNames: service.subjectAltNames ?? [],
    clientTls: service.clientTls === undefined ? undefined : { ...service.clientTls, fromRoot: false },
  }));
  const policies = new Map(
    spec.workloads.map((entry): [string, TrafficPolicy] => {
      const uid = uidOf(`${entry.namespace}/${entry.name}`);
      return [
        uid,
        {
          workload: uid,
          inbound: { mode: entry.mode ?? 'STRICT', source: 'the test' },
          inboundPorts: new Map(
            Object.entries(entry.portModes ?? {}).map(([port, mode]) => [Number(port), { mode, source: `the test, port ${port}` }]),
          ),
          outbound: entry.outbound ?? 'ALLOW_ANY',
          announced:
            entry.announced === undefined
              ? undefined
              : { inbound: { mode: entry.announced, source: 'the test, announced' }, inboundPorts: new Map() },
          shadow:
            entry.shadow === undefined
              ? undefined
              : { inbound: { mode: entry.shadow, source: 'the test, in dry-run' }, inboundPorts: new Map() },
          clientTls: entry.clientTls ?? [],
          rootClientTls: [],
          trustDomainAliases: [],
          ...(entry.httpPorts === undefined ? {} : { http: { ports: entry.httpPorts, jwtRules: entry.jwtRules ?? [] } }),
        },
      ];
    }),
  );
  return {
    knows: () => true,
    registry: new Registry({ workloads, services }),
    policies,
    authorizations: new Authorizations(spec.authorizations ?? []),
  };
}

/** An application: counts the connections and bytes it gets. Echoes unless told otherwise. */
export class Application implements AsyncDisposable {
  readonly server: Server;
  readonly sockets = new Set<Socket>();
  connections = 0;
  bytes = 0;
  /** Source addresses it has seen. */
  readonly sources = new Set<string>();

  private constructor(onConnection: (socket: Socket) => void) {
    this.server = createServer({ allowHalfOpen: true }, (socket) => {
      this.connections++;
      this.sources.add(socket.remoteAddress ?? '');
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
      socket.on('error', () => undefined);
      socket.on('data', (chunk) => {
        this.bytes += chunk.length;
      });
      onConnection(socket);
    });
  }

  static async start(onConnection: (socket: Socket) => void = (socket) => socket.pipe(socket), host = '127.0.0.1'): Promise<Application> {
    const application = new Application(onConnection);
    application.server.listen(0, host);
    await once(application.server, 'listening');
    return application;
  }

  get endpoint(): Endpoint {
    const address = this.server.address();
    if (typeof address !== 'object' || address === null) throw new Error('not listening');
    return { address: address.address, port: address.port };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    this.server.close();
    await once(this.server, 'close');
  }
}

/** Everything a socket says until it ends, and how it ended. Its own side is ended then too. */
export function collect(socket: Socket): Promise<{ text: string; error?: string }> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let error: string | undefined;
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.on('end', () => socket.end());
    socket.on('error', (cause) => {
      error = 'code' in cause ? String(cause.code) : cause.message;
    });
    socket.on('close', () => resolve({ text: Buffer.concat(chunks).toString(), ...(error === undefined ? {} : { error }) }));
  });
}
