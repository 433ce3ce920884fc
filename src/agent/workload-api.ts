// The SPIFFE Workload API (https://spiffe.io/docs/latest/spiffe-specs/spiffe-workload-api/) on a socket of its own: its callers bring no
// token, so what the kernel says of their process is all that speaks for them.

import type { Server, ServerUnaryCall, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js';
import { HandfastError } from '../errors.ts';
import type { NodeTrust } from '../node/node-trust.ts';
import type { Log } from '../observe/log.ts';
import type { MonotonicClock } from '../rate-limit.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Refusal } from '../wire/admission.ts';
import type { ConnectionLimits } from '../wire/connection-counts.ts';
import { type SpiffeWorkloadAPIServer, SpiffeWorkloadAPIService, type X509SVIDResponse } from '../wire/gen/spiffe/workload/workload.ts';
import { newServer, type ServerBounds, stopServer } from '../wire/grpc.ts';
import { listenUnix } from '../wire/grpc-listener.ts';
import type { Attestor } from './attestor.ts';
import { HeldWorkloads, type WorkloadIdentityProvider } from './held-workloads.ts';
import type { JwtSvidSigner } from './jwt-svid-cache.ts';
import { noIdentity, statusOf } from './workload-api-errors.ts';
import { fetchJwtSvids, validateJwtSvid } from './workload-api-jwt.ts';
import { jwtBundlesResponse, x509BundlesResponse, x509SvidResponse } from './workload-api-messages.ts';
import { defaultWorkloadApiLimits, type WorkloadApiLimits, WorkloadGate } from './workload-gate.ts';
import { type StreamPlan, type StreamSource, serveWorkloadStream } from './workload-stream.ts';

export interface WorkloadApiDeps {
  readonly attestor: Attestor;
  readonly identities: WorkloadIdentityProvider;
  /** The CA, behind a cache. */
  readonly signer: JwtSvidSigner;
  readonly trust: Snapshot<NodeTrust>;
  readonly log: Log;
  /** Unix milliseconds. */
  readonly now: () => number;
  readonly limits?: WorkloadApiLimits;
  readonly clock?: MonotonicClock;
}

/** A request holds a JWT-SVID at most, a library has a few streams, and nobody else has proven less of itself. */
const BOUNDS: ServerBounds = { maxMessageBytes: 64 * 1024, maxStreams: 16, requestDeadlineMs: 10_000 };
const CONNECTIONS: ConnectionLimits = { maxPerCaller: 32, maxPerUser: 512 };

/** Serves on a unix socket that everybody may open, until `close` is called. A socket that is served already is taken over. */
export async function serveWorkloadApi({
  path,
  bounds = {},
  ...deps
}: WorkloadApiDeps & { path: string; bounds?: Partial<ServerBounds> }): Promise<{ close(): Promise<void> }> {
  const server = newServer({ ...BOUNDS, ...bounds });
  addWorkloadApi(server, deps);
  const onRefused = (refusal: Refusal) => deps.log.warn(refusal, 'Workload API: connection refused');
  const listener = await listenUnix({ ...CONNECTIONS, server, path, mode: 0o666, takeOver: true, onRefused });
  return {
    close: async () => {
      await listener.close();
      await stopServer(server);
    },
  };
}

/** The server's connections must come through `listenUnix`: of any other nobody knows the caller. */
function addWorkloadApi(server: Server, deps: WorkloadApiDeps): void {
  const { attestor, log, trust, limits = defaultWorkloadApiLimits, clock } = deps;
  const gate = new WorkloadGate({ attestor, log, limits, clock });
  const through = { gate, log };
  const { fetchX509Svid, fetchX509Bundles, fetchJwtBundles } = SpiffeWorkloadAPIService;
  const x509Bundles = (changed: () => void) => trusted(trust, { changed, compose: x509BundlesResponse });
  const jwtBundles = (changed: () => void) => trusted(trust, { changed, compose: jwtBundlesResponse });
  const service: SpiffeWorkloadAPIServer = {
    fetchX509Svid: stream(through, { open: (changed) => x509Svids(deps, changed), serialize: fetchX509Svid.responseSerialize }),
    fetchX509Bundles: stream(through, { open: x509Bundles, serialize: fetchX509Bundles.responseSerialize }),
    fetchJwtBundles: stream(through, { open: jwtBundles, serialize: fetchJwtBundles.responseSerialize }),
    fetchJwtsvid: unary(log, (call) => fetchJwtSvids(call, { gate, ...deps })),
    validateJwtsvid: unary(log, (call) => validateJwtSvid(call, { gate, ...deps })),
  };
  server.addService(SpiffeWorkloadAPIService, service);
}

function x509Svids(deps: WorkloadApiDeps, changed: () => void): StreamSource<X509SVIDResponse> {
  const held = new HeldWorkloads({ identities: deps.identities, log: deps.log, onChange: changed });
  const unsubscribe = deps.trust.subscribe(changed);
  return {
    compose: (workloads) => {
      const trust = deps.trust.current;
      const allowed = workloads.filter(({ spiffeId }) => trust?.crl.blockedIds.has(spiffeId.uri) !== true);
      if (allowed.length === 0) throw noIdentity(new HandfastError('IDENTITY_BLOCKED', 'every workload of the caller has been blocked'));
      held.hold(allowed);
      const outcome = held.outcome(deps.now());
      if (outcome === undefined || trust === undefined) return undefined;
      if ('failure' in outcome) throw noIdentity(outcome.failure);
      const response = x509SvidResponse(outcome.svids, trust);
      if (response.svids.length === outcome.svids.length) return response;
      deps.log.error(
        { trustDomains: trust.bundles.all.map(({ trustDomain }) => trustDomain) },
        'an SVID is held back: its trust domain has no bundle',
      );
      return response.svids.length === 0 ? undefined : response;
    },
    close: () => {
      unsubscribe();
      held.release();
    },
  };
}

function trusted<Response>(
  trust: Snapshot<NodeTrust>,
  { changed, compose }: { changed: () => void; compose: (trust: NodeTrust) => Response | undefined },
): StreamSource<Response> {
  const unsubscribe = trust.subscribe(changed);
  return { compose: () => (trust.current === undefined ? undefined : compose(trust.current)), close: unsubscribe };
}

function stream<Request, Response>({ gate, log }: { gate: WorkloadGate; log: Log }, plan: StreamPlan<Response>) {
  return (call: ServerWritableStream<Request, Response>): void => {
    try {
      serveWorkloadStream(call, gate.admit(call), { gate, plan, log });
    } catch (error) {
      call.emit('error', statusOf(error, log));
    }
  };
}

function unary<Request, Response>(log: Log, answer: (call: ServerUnaryCall<Request, Response>) => Promise<Response>) {
  return (call: ServerUnaryCall<Request, Response>, done: sendUnaryData<Response>): void => {
    answer(call).then(
      (response) => done(null, response),
      (error) => done(statusOf(error, log)),
    );
  };
}
