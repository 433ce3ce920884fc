// The Workload API on a real socket for tests: registrations from a real file, callers as the kernel sees them; CA and trust are stood in for.

import assert from 'node:assert/strict';
import { chmod, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach } from 'node:test';
import { type ClientReadableStream, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { Attestor } from '../../src/agent/attestor.ts';
import type { WorkloadSession } from '../../src/agent/held-workloads.ts';
import { type JwtSvid, JwtSvidCache, type JwtSvidRequest } from '../../src/agent/jwt-svid-cache.ts';
import { serveWorkloadApi, type WorkloadApiDeps } from '../../src/agent/workload-api.ts';
import { WorkloadRegistrations } from '../../src/agent/workload-registrations.ts';
import { type ErrorCode, HandfastError } from '../../src/errors.ts';
import { jwtTrustOf, type NodeTrust } from '../../src/node/node-trust.ts';
import { Snapshot } from '../../src/snapshot.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { parseX509Svid } from '../../src/spiffe/x509-svid.ts';
import { rememberedCallers } from '../../src/wire/caller.ts';
import {
  type JWTSVIDResponse,
  SpiffeWorkloadAPIClient,
  type ValidateJWTSVIDResponse,
  type X509SVIDResponse,
} from '../../src/wire/gen/spiffe/workload/workload.ts';
import { JwtKey, nodeTrust } from './jwt.ts';
import { TestCa } from './pki.ts';
import { RecordingLog } from './sidecar-harness.ts';

export const ID = 'spiffe://cluster.local/ns/bar/sa/httpbin';
export const SECOND = 'spiffe://cluster.local/ns/bar/sa/second';
export const UID = process.getuid?.() ?? 0;

/** Certificates by token, as the agent's sessions with the CA would have them. A token is the ID it proves. */
class FakeIdentities {
  readonly ca: TestCa;
  readonly open = new Map<string, Snapshot<Identity>>();
  /** Tokens the CA refuses, or does not answer for. */
  readonly failing = new Map<string, ErrorCode>();
  released = 0;

  constructor(ca: TestCa) {
    this.ca = ca;
  }

  acquire(token: string): WorkloadSession {
    const identity = new Snapshot<Identity>();
    const ready = this.#issue(token).then((first) => {
      identity.replace(first);
      this.open.set(token, identity);
      return first;
    });
    ready.catch(() => undefined);
    return { ready, identity, release: () => void this.released++ };
  }

  async rotate(token: string): Promise<void> {
    this.open.get(token)?.replace(await this.#issue(token));
  }

  async #issue(token: string): Promise<Identity> {
    const failure = this.failing.get(token);
    if (failure !== undefined) throw new HandfastError(failure, 'refused by the test');
    return { svid: parseX509Svid(await this.ca.svid(token)), bundles: nodeTrust(this.ca, []).bundles };
  }
}

/** What one test works with; made anew for each. */
interface World {
  dir: string;
  ca: TestCa;
  key: JwtKey;
  trust: Snapshot<NodeTrust>;
  identities: FakeIdentities;
  signed: JwtSvidRequest[];
  signerFails: ErrorCode | undefined;
  log: RecordingLog;
  stops: (() => Promise<unknown> | unknown)[];
  now: () => number;
}

/** The world of the test that runs. */
export let world: World;

/** Makes a world for each test of the file, and takes it down after it. */
export function useWorkloadApi(): void {
  beforeEach(async () => {
    const [dir, ca] = [await mkdtemp('/tmp/hf-wl-'), await TestCa.create()];
    await chmod(dir, 0o755);
    const key = new JwtKey('k1');
    world = {
      dir,
      ca,
      key,
      trust: new Snapshot(nodeTrust(ca, [key])),
      identities: new FakeIdentities(ca),
      signed: [],
      signerFails: undefined,
      log: new RecordingLog(),
      stops: [],
      now: Date.now,
    };
  });
  afterEach(async () => {
    for (const stop of world.stops.reverse()) await stop();
    await rm(world.dir, { recursive: true });
    while (rememberedCallers() > 0) await new Promise((resolve) => setImmediate(resolve));
  });
}

export const unlimited = { calls: { burst: 1e9, perSecond: 1e9 }, streams: 1e9 };

export const path = () => join(world.dir, 'workload.sock');

interface Workload {
  readonly id: string;
  readonly selectors?: string;
  readonly token?: string;
}

export async function register(...workloads: readonly Workload[]): Promise<void> {
  const entries: string[] = [];
  for (const { id, selectors = `{ uid: ${UID} }`, token = id } of workloads) {
    const tokenFile = join(world.dir, `${id.replaceAll(/\W/g, '-')}.token`);
    await writeFile(tokenFile, token);
    entries.push(`  - { spiffeId: "${id}", tokenFile: ${tokenFile}, selectors: ${selectors} }\n`);
  }
  await writeFile(join(world.dir, '.new'), entries.length === 0 ? 'workloads: []\n' : `workloads:\n${entries.join('')}`);
  await rename(join(world.dir, '.new'), join(world.dir, 'w.yaml'));
}

export async function serve(change: Partial<WorkloadApiDeps> = {}): Promise<void> {
  const stopping = new AbortController();
  const registrations = new WorkloadRegistrations({ file: join(world.dir, 'w.yaml'), log: world.log.log });
  await registrations.start(stopping.signal);
  const signer = {
    signJwtSvid: async (request: JwtSvidRequest): Promise<JwtSvid> => {
      world.signed.push(request);
      if (world.signerFails !== undefined) throw new HandfastError(world.signerFails, 'refused by the test');
      const issuedAt = Math.floor(world.now() / 1000);
      const expiresAt = issuedAt + 300;
      const token = world.key.sign({ sub: request.token, aud: request.audience, iat: issuedAt, exp: expiresAt });
      return { spiffeId: request.token, token, issuedAt, expiresAt };
    },
  };
  const attestor = new Attestor(registrations);
  const api = await serveWorkloadApi({
    path: path(),
    attestor,
    identities: world.identities,
    signer: new JwtSvidCache({
      signer,
      trust: () => (world.trust.current === undefined ? undefined : jwtTrustOf(world.trust.current)),
      now: () => world.now(),
    }),
    trust: world.trust,
    log: world.log.log,
    now: () => world.now(),
    ...change,
  });
  world.stops.push(
    () => api.close(),
    () => stopping.abort(),
  );
}

export function client(): SpiffeWorkloadAPIClient {
  const made = new SpiffeWorkloadAPIClient(`unix:${path()}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  world.stops.push(() => made.close());
  return made;
}

export function header(value: string | undefined = 'true'): Metadata {
  const metadata = new Metadata();
  metadata.set('workload.spiffe.io', value);
  return metadata;
}

/** A stream whose answers are asked for one by one. */
export function reading<T>(stream: ClientReadableStream<T>) {
  const answers = stream[Symbol.asyncIterator]();
  world.stops.push(() => {
    stream.on('error', () => undefined);
    stream.cancel();
  });
  return {
    next: async (): Promise<T> => {
      const { value, done } = await answers.next();
      assert.notEqual(done, true, 'the stream ended');
      return value;
    },
    refused: async (): Promise<ServiceError> => {
      try {
        await answers.next();
      } catch (error) {
        if (error instanceof Error && 'code' in error && 'details' in error) return error as ServiceError;
        throw error;
      }
      return assert.fail('it was answered');
    },
  };
}

/** One call on a connection of its own, which ends with it: a caller may not have many. */
async function answer<Response>(
  call: (api: SpiffeWorkloadAPIClient, done: (error: ServiceError | null, response: Response) => void) => unknown,
): Promise<Response> {
  const api = client();
  try {
    return await new Promise((resolve, reject) => call(api, (error, response) => (error === null ? resolve(response) : reject(error))));
  } finally {
    api.close();
  }
}

export const validate = (svid: string, audience = 'them', metadata = header()) =>
  answer<ValidateJWTSVIDResponse>((api, done) => api.validateJwtsvid({ svid, audience }, metadata, done));
export const fetchJwt = (audience: string[], spiffeId = '', metadata = header()) =>
  answer<JWTSVIDResponse>((api, done) => api.fetchJwtsvid({ audience, spiffeId }, metadata, done));
export const token = (change: Readonly<Record<string, unknown>> = {}, by = world.key) => {
  const seconds = Math.floor(Date.now() / 1000);
  return by.sign({ sub: ID, aud: ['them'], iat: seconds, exp: seconds + 60, ...change });
};
export const idsOf = ({ svids }: X509SVIDResponse) => svids.map(({ spiffeId }) => spiffeId);
