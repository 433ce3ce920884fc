// The secrets of one serving stream: those that its client has asked for by name and may have. What it may not have is answered as what does not exist.

import { status } from '@grpc/grpc-js';
import { HandfastError } from '../errors.ts';
import { parseSecretResourceName, type SecretResourceName } from '../policy/secret-name.ts';
import { type Rate, TokenBucket } from '../rate-limit.ts';
import { statusError } from '../wire/grpc.ts';
import { shortened } from './answer.ts';
import type { AskedNames, Resources, ResourceView, VersionedResource } from './resource-view.ts';
import type { HeldSecret, SecretFeed } from './secret-feed.ts';
import { typeUrls } from './type-urls.ts';
import { encodeNoSecret, encodeSecretMember } from './workload-secret-codec.ts';

interface Asked extends SecretResourceName {
  readonly release: () => void;
  /** What was last made of a secret for this name. */
  made: { readonly of: HeldSecret; readonly resource: VersionedResource | undefined } | undefined;
  /** State of the world only: it was there once, and that it is gone has to be said. */
  wasThere: boolean;
}

/** Of one stream. */
const MAX_NAMES = 256;
/** What was sent before the last few changes has been answered, or never will be. */
const KEPT_LABELS = 16;

export interface AskedSecretsOptions {
  readonly feed: SecretFeed;
  /** State of the world cannot take a resource back: an empty secret is sent in its place. */
  readonly saysGone: boolean;
  readonly maxNames?: number;
  /** How often a name may come that was not asked for before; without it, as often as requests may. */
  readonly newNames?: Rate;
  /** Told of the versions of a secret that are about to leave under a name, before they do, and of none where they are taken back. */
  readonly onOffer?: (of: { readonly name: string; readonly key: string; readonly versions: readonly string[] }) => void;
  /** The name is asked for no longer: nothing was taken back. */
  readonly onDrop?: (name: string) => void;
}

export class AskedSecrets implements ResourceView {
  readonly asked: AskedNames;
  readonly #options: AskedSecretsOptions;
  readonly #names = new Map<string, Asked>();
  readonly #newNames: TokenBucket | undefined;
  /** Which versions of a secret are in which version of a resource, by both. */
  readonly #labels = new Map<string, Map<string, readonly string[]>>();

  constructor(options: AskedSecretsOptions) {
    this.#options = options;
    this.#newNames = options.newNames === undefined ? undefined : new TokenBucket(options.newNames);
    this.asked = {
      typeUrls: [typeUrls.secret],
      change: (_, { added, dropped }) => {
        for (const name of dropped) this.#drop(name);
        for (const name of added) this.#ask(name);
        return { answers: added.filter((name) => this.#resourceOf(name) !== undefined), touched: [] };
      },
      isAnswered: (_, name) => this.#resourceOf(name) !== undefined,
      isUnknown: (_, name) => this.#isUnknown(name),
      aliasesOf: () => [],
    };
  }

  /** Exactly these names from now on. Throws the status to end the stream with. */
  replaceNames(names: readonly string[], { holds }: { holds: boolean }): void {
    const wanted = new Set(names);
    for (const name of [...this.#names.keys()]) if (!wanted.has(name)) this.#drop(name);
    for (const name of wanted) this.#ask(name, holds);
  }

  /** Without those of which nothing is known yet: neither are they there, nor gone, and the others do not wait for them. */
  resources(typeUrl: string): Resources {
    const resources = new KnownResources();
    if (typeUrl !== typeUrls.secret) return resources;
    for (const [name, asked] of this.#names) {
      if (this.#isUnknown(name)) {
        resources.unknown.add(name);
        continue;
      }
      const resource = this.#resourceOf(name);
      if (resource !== undefined) resources.set(name, resource);
      else if (this.#options.saysGone && asked.wasThere) {
        const gone = encodeNoSecret(name);
        this.#label(name, gone.version, []);
        resources.set(name, gone);
      }
    }
    return resources;
  }

  subscribe(onChange: (typeUrl: string, names?: readonly string[]) => void): () => void {
    return this.#options.feed.subscribe((keys) => {
      const changed = new Set(keys);
      const names = [...this.#names].flatMap(([name, { key }]) => (changed.has(key) ? [name] : []));
      if (names.length > 0) onChange(typeUrls.secret, names);
    });
  }

  /** The versions of a secret that are in what was sent under a name; none where nothing was, and undefined where that is not known: an earlier stream sent it. */
  versionsIn(name: string, resourceVersion: string | undefined): readonly string[] | undefined {
    if (resourceVersion !== undefined) return this.#labels.get(name)?.get(resourceVersion);
    return this.#isUnknown(name) ? undefined : [];
  }

  get names(): ReadonlyMap<string, SecretResourceName> {
    return this.#names;
  }

  end(): void {
    for (const name of [...this.#names.keys()]) this.#drop(name);
  }

  #ask(name: string, holds = false): void {
    if (this.#names.has(name)) return;
    const parsed = parseSecretResourceName(name);
    if (parsed === undefined)
      throw statusError(status.INVALID_ARGUMENT, `${JSON.stringify(shortened(name))} is no secret: secret:NAMESPACE/NAME[/VALUE]`);
    const { feed, maxNames = MAX_NAMES } = this.#options;
    if (this.#names.size >= maxNames) throw statusError(status.RESOURCE_EXHAUSTED, `more than ${maxNames} secrets on one stream`);
    if ((this.#newNames?.take() ?? 0) > 0) throw statusError(status.RESOURCE_EXHAUSTED, 'too many new secrets a second');
    this.#names.set(name, { ...parsed, release: holdOrEnd(feed, parsed.key), made: undefined, wasThere: holds });
  }

  #isUnknown(name: string): boolean {
    const asked = this.#names.get(name);
    return asked !== undefined && this.#options.feed.answer(asked.key) === undefined;
  }

  #drop(name: string): void {
    const asked = this.#names.get(name);
    asked?.release();
    if (asked !== undefined) wipeMade(asked);
    this.#names.delete(name);
    this.#labels.delete(name);
    if (asked !== undefined) this.#options.onDrop?.(name);
  }

  #resourceOf(name: string): VersionedResource | undefined {
    const asked = this.#names.get(name);
    const answer = asked === undefined ? undefined : this.#options.feed.answer(asked.key);
    if (asked === undefined) return undefined;
    if (typeof answer !== 'object') {
      if (asked.made !== undefined) this.#options.onOffer?.({ name, key: asked.key, versions: [] });
      wipeMade(asked);
      asked.made = undefined;
      return undefined;
    }
    if (asked.made?.of === answer) return asked.made.resource;
    const { secret } = answer;
    const resource = asked.member === undefined ? answer.resource : encodeSecretMember(secret, asked.member);
    const versions = resource === undefined ? [] : asked.member === undefined ? [...secret.versions.keys()] : [secret.current];
    wipeMade(asked);
    asked.made = { of: answer, resource };
    asked.wasThere ||= resource !== undefined;
    if (resource !== undefined) this.#label(name, resource.version, versions);
    this.#options.onOffer?.({ name, key: asked.key, versions });
    return resource;
  }

  #label(name: string, resourceVersion: string, versions: readonly string[]): void {
    const labels = this.#labels.get(name) ?? new Map<string, readonly string[]>();
    labels.delete(resourceVersion);
    this.#labels.set(name, labels.set(resourceVersion, versions));
    const [oldest] = labels.keys();
    if (labels.size > KEPT_LABELS && oldest !== undefined) labels.delete(oldest);
  }
}

/** Whoever looks for what is gone finds an unknown one among what there is; whoever looks for what to send does not. */
class KnownResources extends Map<string, VersionedResource> {
  readonly unknown = new Set<string>();

  override has(name: string): boolean {
    return super.has(name) || this.unknown.has(name);
  }
}

/** What was made of one value is ours; a whole secret is whose it came from. */
function wipeMade({ member, made }: Asked): void {
  if (member !== undefined) made?.resource?.value.fill(0);
}

/** Throws the status to end the stream with. */
function holdOrEnd(feed: SecretFeed, key: string): () => void {
  try {
    return feed.hold(key);
  } catch (error) {
    throw error instanceof HandfastError && error.code === 'RATE_LIMITED' ? statusError(status.RESOURCE_EXHAUSTED, error.message) : error;
  }
}
