// What the CA publishes, over SDS: bundle, JWT keys and revocations to every agent and to control; and which node has confirmed which bundle.

import { type Server, status } from '@grpc/grpc-js';
import { secretNames } from '../discovery/identity-source.ts';
import { ResourceCache } from '../discovery/resource-cache.ts';
import { bundleSecret, crlSecret, encodeSecret, genericSecret } from '../discovery/secret-writer.ts';
import { type StateOfTheWorldStream, serveStateOfTheWorldStream } from '../discovery/state-of-the-world-server.ts';
import { typeUrls } from '../discovery/type-urls.ts';
import type { Log } from '../observe/log.ts';
import type { Snapshot } from '../snapshot.ts';
import { type SecretDiscoveryServiceServer, SecretDiscoveryServiceService } from '../wire/gen/envoy/service/secret/v3/sds.ts';
import { statusError, whenOver } from '../wire/grpc.ts';
import { caCaller } from './callers.ts';
import { type ProvingDeps, proveWorkload, statusOf } from './server.ts';
import type { CaTrust } from './trust-publisher.ts';

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
  const followers = new TrustFollowers(() => cache.resources(typeUrls.secret)?.get(secretNames.bundle)?.version ?? '');

  const service: SecretDiscoveryServiceServer = {
    streamSecrets: (call: StateOfTheWorldStream) => {
      try {
        const caller = caCaller(call, { trustDomain, now: now() });
        if (caller.kind !== 'anonymous') follow(call, caller.kind === 'agent' ? caller.name : 'control', { cache, followers, log });
        else if (tokensAlone) followProven(call, deps, (name) => follow(call, name, { cache, followers, log }));
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
function followProven(call: StateOfTheWorldStream, deps: TrustServiceDeps, begin: (name: string) => void): void {
  call.pause();
  let over = false;
  whenOver(call, () => {
    over = true;
  });
  proveWorkload(call, deps).then(
    ({ path }) => {
      if (over) return;
      // No name of a node has a slash.
      begin(`workload ${path.slice(1)}`);
      call.resume();
    },
    (error) => {
      if (!over) call.emit('error', statusOf(error));
    },
  );
}

function follow(
  call: StateOfTheWorldStream,
  peer: string,
  { cache, followers, log }: { cache: ResourceCache; followers: TrustFollowers; log: Log },
): void {
  whenOver(call, () => followers.close(call));
  serveStateOfTheWorldStream(call, {
    typeUrl: typeUrls.secret,
    view: cache,
    peer,
    log,
    admit: ({ resourceNames }) => {
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
