// The asking side of delta xDS: subscriptions by name or wildcard, ACK or NACK for each response, and what is held is named again on reconnection.

import { type ClientDuplexStream, type Metadata, status } from '@grpc/grpc-js';
import type { Snapshot } from '../snapshot.ts';
import type { DeltaDiscoveryRequest, DeltaDiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { addressOf } from './address-name.ts';
import { answer } from './answer.ts';
import { HeldNames } from './held-names.ts';
import type { ResourceChange } from './resource-cache.ts';
import { type DiscoveryLog, maintainStream } from './stream.ts';

/** Names of one type that come and go while streams run. */
export interface ChangingNames {
  /** A stream begins. Returns the names for its first request; later ones are sent as they come. */
  opened(send: (change: { readonly added: readonly string[]; readonly dropped: readonly string[] }) => void): readonly string[];
  /** `isTooMuch`: the server has ended it because too much was asked for. Returns the addresses that are asked for no longer. */
  closed(isTooMuch?: boolean): readonly string[];
  /** The addresses that a response answers. Nothing is changed: it may still be refused. */
  answeredBy(response: DeltaDiscoveryResponse): readonly string[];
  taken(response: DeltaDiscoveryResponse): void;
}

export interface DeltaClientOptions {
  /** `ads`, `sds`: for the log. */
  readonly name: string;
  readonly open: (metadata: Metadata) => ClientDuplexStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;
  readonly nodeId: string;
  readonly token: Snapshot<string> | undefined;
  /** Type URL to the names asked for; no names ask for everything. */
  readonly subscriptions: ReadonlyMap<string, Names>;
  /** Throws or rejects to refuse a response; nothing of it may be in force then. */
  readonly apply: (typeUrl: string, change: ResourceChange) => void | Promise<void>;
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

type Names = readonly string[] | ChangingNames;

/** Runs until the signal aborts. */
export async function runDeltaClient(options: DeltaClientOptions): Promise<void> {
  const held = new Map([...options.subscriptions.keys()].map((typeUrl) => [typeUrl, new HeldNames()]));
  const node = { id: options.nodeId, cluster: '', metadata: undefined, userAgentName: 'handfast', userAgentVersion: '' };

  const changing = (typeUrl: string): ChangingNames | undefined => {
    const names = options.subscriptions.get(typeUrl);
    return names !== undefined && 'opened' in names ? names : undefined;
  };

  await maintainStream<DeltaDiscoveryRequest, DeltaDiscoveryResponse>({
    name: options.name,
    open: options.open,
    token: options.token,
    onOpen: (send) => {
      for (const [typeUrl, names] of held) {
        const asked = options.subscriptions.get(typeUrl) ?? [];
        const change = ({ added, dropped }: { added: readonly string[]; dropped: readonly string[] }) => {
          // Before it is said: what comes of it is no news of what is still in use.
          if (dropped.length > 0) void options.apply(typeUrl, forgetting(dropped));
          send(request({ typeUrl, resourceNamesSubscribe: [...added], resourceNamesUnsubscribe: [...dropped] }));
        };
        const resourceNamesSubscribe = [...('opened' in asked ? asked.opened(change) : asked)];
        send(request({ typeUrl, node, resourceNamesSubscribe, initialResourceVersions: names.named() }));
      }
    },
    onMessage: (response, send) => {
      const { typeUrl, nonce } = response;
      const names = held.get(typeUrl);
      let removed: readonly string[] = [];
      answer(
        () => {
          if (names === undefined) throw new Error(`resources of type ${typeUrl} were not asked for`);
          removed = names.removedBy(response);
          const answered = changing(typeUrl)?.answeredBy(response);
          return options.apply(typeUrl, { upserts: upsertsOf(response), removed, ...(answered === undefined ? {} : { answered }) });
        },
        (errorDetail) => {
          if (errorDetail === undefined) {
            names?.take(response, removed);
            changing(typeUrl)?.taken(response);
          } else options.log.warn({ typeUrl, reason: errorDetail.message }, 'resources refused (NACK), the last good ones stay in force');
          send(request({ typeUrl, responseNonce: nonce, errorDetail }));
        },
      );
    },
    onClose: (code) => {
      for (const typeUrl of held.keys()) {
        const forgotten = changing(typeUrl)?.closed(code === status.RESOURCE_EXHAUSTED) ?? [];
        if (forgotten.length > 0) void options.apply(typeUrl, { upserts: new Map(), removed: [], forgotten });
      }
    },
    log: options.log,
    signal: options.signal,
  });
}

/** What is not asked for any more is not known any more, though some of it may be for another's sake. */
function forgetting(names: readonly string[]): ResourceChange {
  return { upserts: new Map(), removed: [], forgotten: names.flatMap((name) => addressOf(name) ?? []) };
}

function request(fields: Partial<DeltaDiscoveryRequest> & { typeUrl: string }): DeltaDiscoveryRequest {
  return {
    node: undefined,
    resourceNamesSubscribe: [],
    resourceNamesUnsubscribe: [],
    initialResourceVersions: {},
    responseNonce: '',
    errorDetail: undefined,
    ...fields,
  };
}

function upsertsOf(response: DeltaDiscoveryResponse): ReadonlyMap<string, Uint8Array> {
  const upserts = new Map<string, Uint8Array>();
  for (const { name, resource } of response.resources) {
    if (resource === undefined || resource.typeUrl !== response.typeUrl) throw new Error(`resource ${name} is not a ${response.typeUrl}`);
    const earlier = upserts.get(name);
    // Which of the two should hold would be a guess.
    if (earlier !== undefined && Buffer.compare(earlier, resource.value) !== 0)
      throw new Error(`resource ${name} stands twice in one response, with different contents`);
    upserts.set(name, resource.value);
  }
  return upserts;
}
