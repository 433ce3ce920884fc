// SDS on control, for secrets alone: each stream is one workload's, which it proves by its own certificate. An agent has no word here but on the socket that only root may open.

import { type Server, type ServerDuplexStream, status } from '@grpc/grpc-js';
import { AskedSecrets } from '../../discovery/asked-secrets.ts';
import { type DeltaStream, serveDeltaStream } from '../../discovery/delta-server.ts';
import { requestLimit } from '../../discovery/request-limit.ts';
import type { StreamAnswers } from '../../discovery/resource-view.ts';
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
import type { SecretAudit } from './secret-audit.ts';
import type { SecretSource } from './secret-world.ts';

export interface SecretServiceDeps {
  /** Undefined where control is started without secrets. */
  readonly secrets?: { readonly source: SecretSource; readonly audit: SecretAudit } | undefined;
  readonly isInTouch: () => boolean;
  readonly trustDomain: string;
  readonly log: Log;
  readonly now: () => number;
}

/** Of one workload instance: its agent asks for all that its streams ask for. */
const MAX_NAMES = 512;
const REQUESTS = { burst: 1_000, perSecond: 200 };
/** An agent answers at once. */
const ANSWER_TIMEOUT_MS = 60_000;

export function addSecretService(server: Server, deps: SecretServiceDeps): void {
  const service: SecretDiscoveryServiceServer = {
    // Our agents speak delta, and whoever has no agent is served by its own.
    streamSecrets: (call) => void call.emit('error', statusError(status.UNIMPLEMENTED, 'DeltaSecrets alone is served here')),
    deltaSecrets: (call: DeltaStream) => {
      try {
        serve(call, deps);
      } catch (error) {
        call.emit('error', error);
      }
    },
  };
  server.addService(SecretDiscoveryServiceService, service);
}

function serve(call: DeltaStream, deps: SecretServiceDeps): void {
  const { secrets, log } = deps;
  const { id, from } = workloadOfCall(call, deps);
  if (secrets === undefined)
    throw statusError(status.FAILED_PRECONDITION, 'control is started without secrets (--secrets-dir or --secrets)');
  const { source, audit } = secrets;
  leaveWhenOutOfTouch(call, deps.isInTouch);
  const view = new AskedSecrets({
    feed: new EntitledSecrets({ world: source.world, id, audit, from }),
    saysGone: false,
    maxNames: MAX_NAMES,
  });
  const limit = requestLimit(REQUESTS);
  let isFirst = true;
  serveDeltaStream(call, {
    view,
    peer: id.uri,
    log,
    answers: handedTo(view, { id, from, audit }),
    typeUrl: typeUrls.secret,
    answerTimeoutMs: ANSWER_TIMEOUT_MS,
    admit: ({ resourceNamesSubscribe: names }) => {
      limit();
      if ((isFirst && names.length === 0) || !names.every(meansSecret))
        throw statusError(status.INVALID_ARGUMENT, 'secrets are asked for by name: secret:NAMESPACE/NAME');
      isFirst = false;
    },
  });
  whenOver(call, () => view.end());
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

/** What has left for the workload, by its agent's ACK: whatever that agent reports later. */
function handedTo(view: AskedSecrets, { id, from, audit }: { id: SpiffeId; from: string; audit: SecretAudit }): StreamAnswers {
  const handed = new Map<string, ReadonlySet<string>>();
  return {
    settled: ({ held }) => {
      for (const [name, { key }] of view.names) {
        const now = new Set(view.versionsIn(name, held.get(name)));
        const before = handed.get(name);
        handed.set(name, now);
        for (const version of now)
          if (before?.has(version) !== true) audit.record('handed', { secret: key, version, spiffeId: id.uri, from });
        for (const version of before ?? [])
          if (!now.has(version)) audit.record('withdrawn', { secret: key, version, spiffeId: id.uri, from });
      }
    },
  };
}
