// What the CA publishes, over SDS: bundle, JWT keys and revocations to every agent and to control; and which node has confirmed which bundle.

import { type Server, status } from '@grpc/grpc-js';
import { secretNames } from '../discovery/identity-source.ts';
import { requestLimit } from '../discovery/request-limit.ts';
import { ResourceCache } from '../discovery/resource-cache.ts';
import { bundleSecret, crlSecret, encodeSecret, genericSecret } from '../discovery/secret-writer.ts';
import { type StateOfTheWorldStream, serveStateOfTheWorldStream } from '../discovery/state-of-the-world-server.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import { FairShare } from '../fair-share.ts';
import type { Log } from '../observe/log.ts';
import type { Snapshot } from '../snapshot.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { type SecretDiscoveryServiceServer, SecretDiscoveryServiceService } from '../wire/gen/envoy/service/secret/v3/sds.ts';
import { statusError, whenOver } from '../wire/grpc.ts';
import { caCaller } from './callers.ts';
import { type ProvingDeps, proveWorkload, statusOf } from './server.ts';
import type { CaTrust } from './trust-publisher.ts';

/** A sidecar answers at once. */
const ANSWER_TIMEOUT_MS = 60_000;
/** As many pods as one service account may have here. */
const MAX_OF_WORKLOAD = 4_096;

/** Keeps track of the nodes that follow the trust bundle. */
export class TrustFollowers {
  readonly #streams = new Map<object, { readonly node: string; acked: string | undefined }>();
  readonly #current: () => string;

  /** `current` is the version of the bundle that is published now. */
  constructor(current: () => string) {
    this.#current = current;
  }

  /** Called for every request of a stream; what it has confirmed stays. */
  open(stream: object, node: string): void {
    if (!this.#streams.has(stream)) this.#streams.set(stream, { node, acked: undefined });
  }

  acked(stream: object, version: string): void {
    const follower = this.#streams.get(stream);
    if (follower !== undefined) follower.acked = version;
  }

  close(stream: object): void {
    this.#streams.delete(stream);
  }

  /** Of these nodes, those that have not confirmed the current bundle: not connected, or not that far. Those that are connected are always meant. */
  behind(live: Iterable<string>): string[] {
    const current = this.#current();
    // Where several processes are one node, the last of them counts.
    const nodes = new Map<string, boolean>();
    for (const { node, acked } of this.#streams.values()) nodes.set(node, (nodes.get(node) ?? true) && acked === current);
    return [...new Set([...live, ...nodes.keys()])].filter((node) => nodes.get(node) !== true);
  }

  get connected(): string[] {
    return [...new Set([...this.#streams.values()].map(({ node }) => node))];
  }
}

export interface TrustServiceDeps extends ProvingDeps {
  readonly trust: Snapshot<CaTrust>;
  readonly trustDomain: string;
  /** Whether a workload's token is enough (its sidecar has no agent): nothing of this is secret, but strangers need not have it. */
  readonly tokensAlone: boolean;
  readonly log: Log;
}

/** On each of these servers. */
export function addTrustService(servers: readonly Server[], deps: TrustServiceDeps): TrustFollowers {
  const { trust, trustDomain, tokensAlone, log, now } = deps;
  const cache = new ResourceCache();
  const publish = ({ bundlePem, crlPem, jwks }: CaTrust) => {
    const secrets = [bundleSecret(secretNames.bundle, bundlePem), crlSecret(crlPem), genericSecret(secretNames.jwks, jwks)];
    cache.replace(typeUrls.secret, new Map(secrets.map((secret) => [secret.name, encodeSecret(secret).value])));
  };
  if (trust.current !== undefined) publish(trust.current);
  trust.subscribe(publish);
  const share = new FairShare({ all: Number.POSITIVE_INFINITY, each: MAX_OF_WORKLOAD });
  const followers = new TrustFollowers(() => cache.resources(typeUrls.secret)?.get(secretNames.bundle)?.version ?? '');

  const service: SecretDiscoveryServiceServer = {
    streamSecrets: (call: StateOfTheWorldStream) => {
      try {
        const caller = caCaller(call, { trustDomain, now: now() });
        if (caller.kind !== 'anonymous') follow(call, { peer: caller.kind === 'agent' ? caller.name : 'control', cache, followers, log });
        else if (tokensAlone)
          followProven(call, deps, (id) => followAsWorkload(call, { workload: id.path.slice(1), share, cache, followers, log }));
        else throw statusError(status.UNAUTHENTICATED, 'join first: only nodes are told what the mesh trusts');
      } catch (error) {
        call.emit('error', error);
      }
    },
    deltaSecrets: (call) => {
      call.emit('error', statusError(status.UNIMPLEMENTED, 'the CA speaks StreamSecrets'));
    },
  };
  for (const server of servers) server.addService(SecretDiscoveryServiceService, service);
  return followers;
}

/** Requests wait in the stream until its token is proven. */
function followProven(call: StateOfTheWorldStream, deps: TrustServiceDeps, begin: (id: SpiffeId) => void): void {
  call.pause();
  let over = false;
  whenOver(call, () => {
    over = true;
  });
  proveWorkload(call, deps).then(
    (id) => {
      if (over) return;
      begin(id);
      call.resume();
    },
    (error) => {
      if (!over) call.emit('error', statusOf(error));
    },
  );
}

/** Its word delays a change of roots as a node's does, so that it must answer, and there are only so many of it. */
function followAsWorkload(
  call: StateOfTheWorldStream,
  of: Omit<Following, 'peer' | 'untrusted'> & { workload: string; share: FairShare },
): void {
  const { workload, share, ...following } = of;
  const giveBack = share.take(workload);
  if (giveBack === undefined) {
    call.emit('error', statusError(status.RESOURCE_EXHAUSTED, `more than ${MAX_OF_WORKLOAD} streams of one workload`));
    return;
  }
  whenOver(call, giveBack);
  // No name of a node has a slash.
  follow(call, { ...following, peer: `workload ${workload}`, untrusted: true });
}

interface Following {
  readonly peer: string;
  readonly cache: ResourceCache;
  readonly followers: TrustFollowers;
  readonly log: Log;
  /** It is held to a rate, and must answer. */
  readonly untrusted?: boolean;
}

function follow(call: StateOfTheWorldStream, { peer, cache, followers, log, untrusted = false }: Following): void {
  const limit = untrusted ? requestLimit() : () => undefined;
  whenOver(call, () => followers.close(call));
  serveStateOfTheWorldStream(call, {
    typeUrl: typeUrls.secret,
    view: cache,
    peer,
    log,
    answerTimeoutMs: untrusted ? ANSWER_TIMEOUT_MS : undefined,
    admit: ({ resourceNames }) => {
      limit();
      if (resourceNames.includes(secretNames.bundle)) followers.open(call, peer);
    },
    answers: {
      acked: ({ versions }) => {
        const version = versions.get(secretNames.bundle);
        if (version === undefined) return;
        followers.acked(call, version);
        log.info({ node: peer }, 'trust bundle confirmed');
      },
    },
  });
}
