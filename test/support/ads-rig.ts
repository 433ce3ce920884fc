// Delta ADS over a real unix socket: a server of ours over a cache, our client, and a client that says only what the test says. Everything is closed after each test.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach } from 'node:test';
import { type ClientDuplexStream, credentials, type Server, type ServiceError } from '@grpc/grpc-js';
import { runDeltaAdsClient } from '../../src/discovery/delta-ads-client.ts';
import { type DeltaServerOptions, type DeltaStream, serveDeltaStream } from '../../src/discovery/delta-server.ts';
import { ResourceCache, type ResourceChange } from '../../src/discovery/resource-cache.ts';
import type { ResourceView } from '../../src/discovery/resource-view.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { AggregatedDiscoveryServiceClient, AggregatedDiscoveryServiceService } from '../../src/wire/gen/envoy/service/discovery/v3/ads.ts';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { newServer, type ServerBounds, stopServer } from '../../src/wire/grpc.ts';
import { listenUnix } from '../../src/wire/grpc-listener.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';

export const [A, B] = ['type.googleapis.com/a', 'type.googleapis.com/b'] as const;
export const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** Things that happen, in order, and a way to wait for the next of them. */
export class Events<T> {
  readonly all: T[] = [];
  #wake: (() => void)[] = [];

  push(event: T): void {
    this.all.push(event);
    for (const wake of this.#wake.splice(0)) wake();
  }

  /** The events once the condition holds; the test's own deadline bounds the wait. */
  async until(holds: (all: readonly T[]) => boolean): Promise<readonly T[]> {
    while (!holds(this.all)) await new Promise<void>((resolve) => this.#wake.push(resolve));
    return this.all;
  }

  count(count: number): Promise<readonly T[]> {
    return this.until((all) => all.length >= count);
  }
}

export interface Logged {
  readonly fields: Readonly<Record<string, unknown>>;
  readonly message: string;
}

export function recordingLog(): {
  log: { info(fields: object, message: string): void; warn(fields: object, message: string): void };
  lines: Events<Logged>;
} {
  const lines = new Events<Logged>();
  const write = (fields: object, message: string) => lines.push({ fields: { ...fields }, message });
  return { log: { info: write, warn: write }, lines };
}

export const resources = (of: Readonly<Record<string, string>>) =>
  new Map(Object.entries(of).map(([name, text]) => [name, Buffer.from(text)]));

export interface ServerRig {
  readonly address: string;
  readonly cache: ResourceCache;
  /** As the server reads and writes them. */
  readonly requests: Events<DeltaDiscoveryRequest>;
  readonly responses: Events<DeltaDiscoveryResponse>;
  readonly streams: Events<DeltaStream>;
  readonly serverLog: Events<Logged>;
}

export async function serve(
  path?: string,
  cache = new ResourceCache(),
  rules: Partial<DeltaServerOptions> & {
    whenLeft?: (left: () => void) => void;
    bounds?: Partial<ServerBounds>;
    /** What a stream is served, where it is not the cache as it stands. */
    viewOf?: () => ResourceView;
  } = {},
): Promise<ServerRig & { path: string; server: Server; stop(): Promise<void> }> {
  let socket = path;
  if (socket === undefined) {
    const dir = mkdtempSync(join(tmpdir(), 'handfast-ads-'));
    cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
    socket = join(dir, 'ads.sock');
  }
  const [requests, responses, streams] = [
    new Events<DeltaDiscoveryRequest>(),
    new Events<DeltaDiscoveryResponse>(),
    new Events<DeltaStream>(),
  ];
  const { log, lines } = recordingLog();
  const server = newServer(rules.bounds);
  server.addService(AggregatedDiscoveryServiceService, {
    deltaAggregatedResources: (call: DeltaStream) => {
      const write = call.write.bind(call);
      // Seen before it goes out; the pipeline itself is untouched.
      call.write = (response: DeltaDiscoveryResponse, whenLeft: (error?: Error | null) => void) => {
        responses.push(response);
        return write(response, () => (rules.whenLeft ?? ((left) => left()))(whenLeft));
      };
      serveDeltaStream(call, { ...rules, view: rules.viewOf?.() ?? cache, peer: 'test', log });
      call.on('data', (request: DeltaDiscoveryRequest) => requests.push(request));
      streams.push(call);
    },
  });
  const listener = await listenUnix({ server, path: socket, mode: 0o600, takeOver: false, onRefused: () => undefined });
  const stop = async () => {
    await listener.close();
    await stopServer(server, 10);
  };
  cleanups.push(stop);
  return { address: `unix:${socket}`, path: socket, server, stop, cache, requests, responses, streams, serverLog: lines };
}

export interface ClientRig {
  readonly applied: Events<{ typeUrl: string; upserts: Record<string, string>; removed: readonly string[] }>;
  readonly clientLog: Events<Logged>;
  readonly token: Snapshot<string>;
}

/** Our client; `refuse` says why a change cannot be used. */
export function startClient(
  rig: { address: string },
  options: { refuse?: (change: ResourceChange) => string | undefined; typeUrls?: readonly string[] } = {},
): ClientRig {
  const stopping = new AbortController();
  const applied: ClientRig['applied'] = new Events();
  const token = new Snapshot('first');
  const { log, lines } = recordingLog();
  const running = runDeltaAdsClient({
    target: unixTarget(rig.address),
    nodeId: 'node-1',
    token,
    typeUrls: options.typeUrls ?? [A],
    apply: (typeUrl, change) => {
      const reason = options.refuse?.(change);
      if (reason !== undefined) throw new Error(reason);
      const upserts = Object.fromEntries([...change.upserts].map(([name, value]) => [name, Buffer.from(value).toString()]));
      applied.push({ typeUrl, upserts, removed: change.removed });
    },
    log,
    signal: stopping.signal,
  });
  cleanups.push(async () => {
    stopping.abort();
    await running;
  });
  return { applied, clientLog: lines, token };
}

/** A client that says only what the test says. */
export function rawClient(rig: { address: string }): {
  received: Events<DeltaDiscoveryResponse>;
  ended: Promise<ServiceError>;
  send(fields: Partial<DeltaDiscoveryRequest>): void;
} {
  const client = new AggregatedDiscoveryServiceClient(rig.address, credentials.createInsecure());
  const call: ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse> = client.deltaAggregatedResources();
  const received = new Events<DeltaDiscoveryResponse>();
  call.on('data', (response: DeltaDiscoveryResponse) => received.push(response));
  const ended = new Promise<ServiceError>((resolve) => call.on('error', resolve));
  cleanups.push(() => {
    call.cancel();
    client.close();
  });
  return {
    received,
    ended,
    send: (fields) =>
      call.write({
        node: undefined,
        typeUrl: A,
        resourceNamesSubscribe: [],
        resourceNamesUnsubscribe: [],
        initialResourceVersions: {},
        responseNonce: '',
        errorDetail: undefined,
        ...fields,
      }),
  };
}

export const names = (response: DeltaDiscoveryResponse | undefined) => ({
  resources: (response?.resources ?? []).map(({ name }) => name).sort(),
  removed: [...(response?.removedResources ?? [])].sort(),
});
