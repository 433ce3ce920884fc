// SDS on control, for secrets alone: each stream is one workload's, which it proves by its own certificate. An agent has no word here but on the socket that only root may open.

import { type Server, type ServerDuplexStream, status } from '@grpc/grpc-js';
import { AskedSecrets, type AskedSecretsOptions } from '../../discovery/asked-secrets.ts';
import { type DeltaStream, serveDeltaStream } from '../../discovery/delta-server.ts';
import { requestLimit } from '../../discovery/request-limit.ts';
import { WORKLOAD_METADATA } from '../../discovery/secret-feed.ts';
import { typeUrls } from '../../discovery/type-urls.ts';
import type { Log } from '../../observe/log.ts';
import { meansSecret } from '../../policy/secret-name.ts';
import { parseSpiffeId, type SpiffeId, workloadOf } from '../../spiffe/spiffe-id.ts';
import { addressOfCaller, callerOf } from '../../wire/caller.ts';
import { type SecretDiscoveryServiceServer, SecretDiscoveryServiceService } from '../../wire/gen/envoy/service/secret/v3/sds.ts';
import { statusError, whenOver } from '../../wire/grpc.ts';
import { leaveWhenOutOfTouch } from '../out-of-touch.ts';
import { EntitledSecrets } from './entitled-secrets.ts';
import type { HandedVersions } from './handed-versions.ts';
import type { SecretAudit } from './secret-audit.ts';
import type { SecretSource } from './secret-world.ts';

export interface SecretServiceDeps {
  /** Undefined where control is started without secrets. */
  readonly secrets?: { readonly source: SecretSource; readonly audit: SecretAudit; readonly handed: HandedVersions } | undefined;
  readonly isInTouch: () => boolean;
  readonly trustDomain: string;
  readonly log: Log;
  readonly now: () => number;
}

/** Of one workload instance: its agent asks for all that its streams ask for. */
const MAX_NAMES = 512;
const MAX_OF_WORKLOAD = 4_096;
const REQUESTS = { burst: 1_000, perSecond: 200 };
/** An agent answers at once. */
const ANSWER_TIMEOUT_MS = 60_000;

export function addSecretService(server: Server, deps: SecretServiceDeps): void {
  const streams = new OpenStreams();
  const service: SecretDiscoveryServiceServer = {
    // Our agents speak delta, and whoever has no agent is served by its own.
    streamSecrets: (call) => void call.emit('error', statusError(status.UNIMPLEMENTED, 'DeltaSecrets alone is served here')),
    deltaSecrets: (call: DeltaStream) => {
      try {
        serve(call, deps, streams);
      } catch (error) {
        call.emit('error', error);
      }
    },
  };
  server.addService(SecretDiscoveryServiceService, service);
}

function serve(call: DeltaStream, deps: SecretServiceDeps, streams: OpenStreams): void {
  const { secrets, log } = deps;
  const { id, from } = workloadOfCall(call, deps);
  if (secrets === undefined)
    throw statusError(status.FAILED_PRECONDITION, 'control is started without secrets (--secrets-dir or --secrets)');
  const { source, audit, handed } = secrets;
  const end = streams.open(id.uri);
  // Also where there is no other control to ask: policies that have been tightened since must not hand out anything.
  const isInTouch = () => source.isInTouch && deps.isInTouch();
  leaveWhenOutOfTouch(call, isInTouch);
  const view = new AskedSecrets({
    feed: new EntitledSecrets({ world: source.world, id, audit, from }),
    saysGone: false,
    maxNames: MAX_NAMES,
    ...handedTo({ id, from, audit, handed }),
  });
  const limit = requestLimit(REQUESTS);
  let isFirst = true;
  serveDeltaStream(call, {
    view,
    peer: id.uri,
    log,
    typeUrl: typeUrls.secret,
    answerTimeoutMs: ANSWER_TIMEOUT_MS,
    admit: ({ resourceNamesSubscribe: names }) => {
      limit();
      if ((isFirst && names.length === 0) || !names.every(meansSecret))
        throw statusError(status.INVALID_ARGUMENT, 'secrets are asked for by name: secret:NAMESPACE/NAME');
      if (names.length > 0 && !isInTouch())
        throw statusError(status.UNAVAILABLE, 'this control cannot follow secrets and their policies now');
      isFirst = false;
    },
  });
  whenOver(call, () => {
    view.end();
    end();
  });
}

/** Whoever asks. Throws the status for anybody who is no workload of ours. */
function workloadOfCall(
  call: ServerDuplexStream<unknown, unknown>,
  { trustDomain, now }: SecretServiceDeps,
): { id: SpiffeId; from: string } {
  const caller = callerOf(call);
  if (caller?.kind === 'unix') {
    const [said] = call.metadata.get(WORKLOAD_METADATA);
    const id = typeof said === 'string' ? parsed(said) : undefined;
    if (id !== undefined && isOurs(id, trustDomain)) return { id, from: 'local' };
  }
  if (caller?.kind === 'tls' && isOurs(caller.peer.id, trustDomain) && now() <= caller.peer.notAfter)
    return { id: caller.peer.id, from: addressOfCaller(call) ?? 'unknown' };
  throw statusError(status.PERMISSION_DENIED, 'secrets are given to workloads alone, each by its own certificate');
}

function parsed(uri: string): SpiffeId | undefined {
  try {
    return parseSpiffeId(uri);
  } catch {
    return undefined;
  }
}

function isOurs(id: SpiffeId, trustDomain: string): boolean {
  return id.trustDomain === trustDomain && workloadOf(id) !== undefined;
}

/** What leaves for the workload is recorded before it does: whether its agent ever confirms it or not. */
function handedTo(of: {
  readonly id: SpiffeId;
  readonly from: string;
  readonly audit: SecretAudit;
  readonly handed: HandedVersions;
}): Pick<AskedSecretsOptions, 'onOffer' | 'onDrop'> {
  const { id, from, audit, handed } = of;
  const underName = new Map<string, readonly string[]>();
  return {
    onOffer: ({ name, key, versions }) => {
      const before = underName.get(name) ?? [];
      underName.set(name, versions);
      const record = (event: 'handed' | 'withdrawn', version: string) =>
        audit.record(event, { secret: key, version, spiffeId: id.uri, from });
      for (const version of versions) handed.add({ id: id.uri, key, version });
      for (const version of versions) if (!before.includes(version)) record('handed', version);
      for (const version of before) if (!versions.includes(version)) record('withdrawn', version);
    },
    onDrop: (name) => void underName.delete(name),
  };
}

/** How many streams each workload has: all its pods together. */
class OpenStreams {
  readonly #counts = new Map<string, number>();

  /** Counts one; call the answer when it has ended. Throws the status to end it with. */
  open(workload: string): () => void {
    const open = this.#counts.get(workload) ?? 0;
    if (open >= MAX_OF_WORKLOAD) throw statusError(status.RESOURCE_EXHAUSTED, `${open} streams of ${workload} are open`);
    this.#counts.set(workload, open + 1);
    let over = false;
    return () => {
      if (over) return;
      over = true;
      const left = (this.#counts.get(workload) ?? 1) - 1;
      if (left === 0) this.#counts.delete(workload);
      else this.#counts.set(workload, left);
    };
  }
}
