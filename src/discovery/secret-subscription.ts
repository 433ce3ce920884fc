// The asking side of secrets: names that come and go on one delta stream of their own. What has been told stays while the stream is away, and is wiped when it is taken back.

import type { Metadata } from '@grpc/grpc-js';
import { parseSecretResourceName, secretResourceName } from '../policy/secret-name.ts';
import { wipe } from '../policy/workload-secret.ts';
import type { Snapshot } from '../snapshot.ts';
import type { DeltaDiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient } from '../wire/gen/envoy/service/secret/v3/sds.ts';
import { registryChannelOptions } from '../wire/grpc.ts';
import { type GrpcTarget, openStream } from '../wire/grpc-target.ts';
import { type ChangingNames, runDeltaClient } from './delta-client.ts';
import type { ResourceChange } from './resource-cache.ts';
import type { HeldSecret, SecretAnswer, SecretFeed } from './secret-feed.ts';
import { keyedDigest } from './secret-version.ts';
import type { DiscoveryLog } from './stream.ts';
import { typeUrls } from './type-urls.ts';
import { decodeWorkloadSecret } from './workload-secret-codec.ts';

export interface SecretSubscriptionOptions {
  readonly target: () => GrpcTarget;
  readonly nodeId: string;
  readonly token: Snapshot<string> | undefined;
  /** Added to each stream's metadata. */
  readonly describe?: (metadata: Metadata, target: GrpcTarget) => void;
  /** How long a secret is kept after nobody holds it any more: whoever held it may come back at once. */
  readonly lingerMs?: number;
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

interface Held {
  holders: number;
  answer: SecretAnswer;
  lingering: NodeJS.Timeout | undefined;
}

interface Run {
  readonly stop: AbortController;
  ended: Promise<void>;
}

type Send = (change: { readonly added: readonly string[]; readonly dropped: readonly string[] }) => void;

const LINGER_MS = 30_000;

export class SecretSubscription implements SecretFeed {
  readonly #options: SecretSubscriptionOptions;
  readonly #held = new Map<string, Held>();
  readonly #subscribers = new Set<(keys: readonly string[]) => void>();
  /** No longer asked for, which has not been answered yet: until then they are not asked for anew, since what is under way could be taken for the answer. */
  readonly #dropping = new Set<string>();
  #send: Send | undefined;
  #running: Run | undefined;

  constructor(options: SecretSubscriptionOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.#end(), { once: true });
  }

  hold(key: string): () => void {
    const held = this.#held.get(key) ?? { holders: 0, answer: undefined, lingering: undefined };
    clearTimeout(held.lingering);
    held.lingering = undefined;
    held.holders++;
    if (!this.#held.has(key)) {
      this.#held.set(key, held);
      this.#ask(key);
    }
    let released = false;
    return () => {
      if (released) return;
      released = true;
      held.holders--;
      if (held.holders === 0 && this.#held.get(key) === held) this.#letGo(key, held);
    };
  }

  answer(key: string): SecretAnswer {
    return this.#held.get(key)?.answer;
  }

  subscribe(onChange: (keys: readonly string[]) => void): () => void {
    this.#subscribers.add(onChange);
    return () => this.#subscribers.delete(onChange);
  }

  /** After the signal has aborted: until nothing runs any more. */
  async ended(): Promise<void> {
    await this.#running?.ended;
  }

  #letGo(key: string, held: Held): void {
    const forget = () => {
      this.#held.delete(key);
      wipeAnswer(held.answer);
      if (this.#held.size === 0) return this.#stopStream();
      if (this.#send === undefined) return;
      this.#dropping.add(key);
      this.#send({ added: [], dropped: [secretResourceName(key)] });
    };
    const { lingerMs = LINGER_MS } = this.#options;
    if (lingerMs === 0 || typeof held.answer !== 'object') forget();
    else held.lingering = setTimeout(forget, lingerMs).unref();
  }

  #ask(key: string): void {
    if (this.#options.signal.aborted) return;
    if (this.#running === undefined) this.#run();
    else if (!this.#dropping.has(key)) this.#send?.({ added: [secretResourceName(key)], dropped: [] });
  }

  /** A stream without names would ask for everything: there is one only while there are names. */
  #run(): void {
    const run: Run = { stop: new AbortController(), ended: Promise.resolve() };
    // The first stream is opened before the call below returns.
    this.#running = run;
    const { nodeId, token, log, describe } = this.#options;
    // A run that was stopped has no word any more in what the next one holds.
    const isPresent = () => this.#running === run;
    const names: ChangingNames = {
      opened: (send) => {
        if (isPresent()) this.#send = send;
        return [...this.#held.keys()].map(secretResourceName);
      },
      closed: () => {
        if (isPresent()) this.#closed();
        return [];
      },
      answeredBy: () => [],
      taken: (response) => {
        if (isPresent()) this.#dropped(response);
      },
    };
    run.ended = runDeltaClient({
      name: 'secrets',
      open: (metadata) => {
        const target = this.#options.target();
        describe?.(metadata, target);
        return openStream(SecretDiscoveryServiceClient, { target, options: registryChannelOptions }, (client) =>
          client.deltaSecrets(metadata),
        );
      },
      nodeId,
      token,
      subscriptions: new Map([[typeUrls.secret, names]]),
      apply: (_, change) => {
        if (isPresent()) this.#apply(change);
      },
      log,
      signal: run.stop.signal,
    });
  }

  #stopStream(): void {
    const run = this.#running;
    this.#running = undefined;
    this.#closed();
    run?.stop.abort();
  }

  #closed(): void {
    this.#send = undefined;
    this.#dropping.clear();
  }

  /** All of a response or nothing of it. */
  #apply({ upserts, removed }: ResourceChange): void {
    const next = new Map<string, SecretAnswer>();
    for (const [name, value] of upserts) next.set(keyOf(name), readHeld(name, value));
    for (const name of removed) if (!this.#dropping.has(keyOf(name))) next.set(keyOf(name), 'none');
    const changed: string[] = [];
    for (const [key, answer] of next) {
      const held = this.#held.get(key);
      if (held === undefined || isSame(held.answer, answer)) {
        wipeAnswer(answer);
        continue;
      }
      wipeAnswer(held.answer);
      held.answer = answer;
      changed.push(key);
    }
    if (changed.length > 0) for (const subscriber of [...this.#subscribers]) subscriber(changed);
  }

  /** What was dropped has been answered: whoever wants it again may ask. */
  #dropped({ removedResources }: DeltaDiscoveryResponse): void {
    for (const name of removedResources) {
      const key = keyOf(name);
      if (this.#dropping.delete(key) && this.#held.has(key)) this.#send?.({ added: [name], dropped: [] });
    }
  }

  #end(): void {
    this.#running?.stop.abort();
    for (const { lingering, answer } of this.#held.values()) {
      clearTimeout(lingering);
      wipeAnswer(answer);
    }
    this.#held.clear();
  }
}

function keyOf(resourceName: string): string {
  return parseSecretResourceName(resourceName)?.key ?? '';
}

/** Throws SECRET_INVALID, or for the secret of another name. */
function readHeld(name: string, value: Uint8Array): HeldSecret {
  const secret = decodeWorkloadSecret(value);
  if (secretResourceName(secret.key) !== name) throw new Error(`the resource ${JSON.stringify(name)} holds another secret`);
  return { secret, resource: { version: keyedDigest(value), value: Buffer.from(value) } };
}

function isSame(a: SecretAnswer, b: SecretAnswer): boolean {
  if (typeof a !== 'object' || typeof b !== 'object') return a === b;
  return a.resource.version === b.resource.version;
}

function wipeAnswer(answer: SecretAnswer): void {
  if (typeof answer !== 'object') return;
  for (const data of answer.secret.versions.values()) wipe(data);
  answer.resource.value.fill(0);
}
