// The keys of the issuers that RequestAuthentications name, fetched here once for all sidecars, and again now and then. What was had stays while an issuer is away; one that was never had has none, and no token of it is good.

import { setTimeout as delay } from 'node:timers/promises';
import { Backoff } from '../../backoff.ts';
import { messageOf } from '../../errors.ts';
import type { Log } from '../../observe/log.ts';
import { type FetchedKeys, type KeySource, keySourceId } from '../../policy/jwt-rules.ts';
import { Snapshot } from '../../snapshot.ts';
import { canonicalJwks } from '../../spiffe/canonical-jwks.ts';
import { Turns } from '../../turns.ts';
import { isConfidential } from '../../wire/bounded-request.ts';
import { fetchIssuerJwks, fetchKeys } from '../../wire/oidc-discovery.ts';
import type { MeshObjects } from '../objects/mesh-objects.ts';
import { inwardUrl, outwardLookup } from './outward-lookup.ts';

const TIMEOUT_MS = 5_000;
/** Istio's, and up to a tenth more, so that many do not ask at once. */
const REFRESH_MS = 20 * 60_000;
/** Of one namespace. More would be somebody's mistake, or somebody's attack on others through us; and nobody waits for another namespace's issuers. */
const MAX_SOURCES = 100;
const TURNS = { atOnce: 4, waiting: MAX_SOURCES, waitMs: (MAX_SOURCES * TIMEOUT_MS) / 2 };

export interface IssuerKeysOptions {
  /** Whether plaintext on loopback may be asked: where objects are files of this machine. */
  readonly loopback: boolean;
  readonly refreshMs?: number;
  readonly log: Log;
  readonly signal: AbortSignal;
}

export class IssuerKeys {
  readonly keys = new Snapshot<FetchedKeys>(new Map());
  readonly #options: IssuerKeysOptions;
  readonly #following = new Map<string, AbortController>();
  #tooMany: ReadonlyMap<string, number> = new Map();
  /** By namespace. */
  readonly #turns = new Map<string, Turns>();

  constructor(options: IssuerKeysOptions) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.#follow(new Map()), { once: true });
  }

  /** Follows what these objects name, and nothing else any more. */
  replace({ requestAuthentications }: MeshObjects): void {
    const sources = new Map<string, { source: KeySource; namespace: string }>();
    const counts = new Map<string, number>();
    for (const { rules, namespace } of requestAuthentications)
      for (const { keys } of rules) {
        const id = keySourceId(keys);
        if (id === undefined || sources.has(id)) continue;
        const count = (counts.get(namespace) ?? 0) + 1;
        counts.set(namespace, count);
        if (count <= MAX_SOURCES) sources.set(id, { source: keys, namespace });
      }
    for (const [namespace, count] of counts)
      if (count > MAX_SOURCES && this.#tooMany.get(namespace) !== count)
        this.#options.log.warn(
          { namespace, count, most: MAX_SOURCES },
          'too many issuers: the keys of the last ones are not fetched, and their tokens are refused',
        );
    this.#tooMany = counts;
    for (const namespace of this.#turns.keys()) if (!counts.has(namespace)) this.#turns.delete(namespace);
    if (this.#options.signal.aborted) return;
    this.#follow(sources);
  }

  #follow(sources: ReadonlyMap<string, { source: KeySource; namespace: string }>): void {
    for (const [id, following] of this.#following) {
      if (sources.has(id)) continue;
      following.abort();
      this.#following.delete(id);
    }
    const gone = [...this.#known.keys()].filter((id) => !sources.has(id));
    if (gone.length > 0 && !this.#options.signal.aborted) this.keys.replace(new Map([...this.#known].filter(([id]) => sources.has(id))));
    for (const [id, { source, namespace }] of sources) {
      if (this.#following.has(id)) continue;
      const following = new AbortController();
      this.#following.set(id, following);
      void this.#keep(id, { source, namespace }, following.signal);
    }
  }

  get #known(): FetchedKeys {
    return this.keys.current ?? new Map();
  }

  /** Fetches until nobody names the source any more. Never rejects. */
  async #keep(id: string, { source, namespace }: { source: KeySource; namespace: string }, signal: AbortSignal): Promise<void> {
    const { refreshMs = REFRESH_MS, log } = this.#options;
    const backoff = new Backoff({ baseMs: 1_000, maxMs: 60_000 });
    while (!signal.aborted) {
      let waitMs = refreshMs * (1 + Math.random() / 10);
      try {
        // Read here, so that no sidecar is told what it cannot use, nor more than it can.
        const text = canonicalJwks(await this.#turnsOf(namespace).run(() => this.#fetch(source)));
        backoff.reset();
        if (!signal.aborted && this.#known.get(id) !== text) {
          this.keys.replace(new Map([...this.#known, [id, text]]));
          log.info({ issuer: id }, 'keys of an issuer in force');
        }
      } catch (error) {
        if (signal.aborted) return;
        waitMs = backoff.next();
        log.warn({ issuer: id, reason: messageOf(error), kept: this.#known.has(id) }, 'keys of an issuer not fetched');
      }
      await delay(waitMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  #fetch(source: KeySource): Promise<string> {
    if ('jwks' in source) return Promise.resolve(source.jwks);
    const url = new URL('url' in source ? source.url : source.issuer);
    const isLoopback = url.protocol === 'http:';
    if (isLoopback && !this.#options.loopback) throw new Error(`${url.href}: only https may be asked here`);
    const asking = { timeoutMs: TIMEOUT_MS, ...(isLoopback ? {} : { lookup: outwardLookup, refuse: inwardUrl }) };
    if ('issuer' in source) return fetchIssuerJwks(source.issuer, asking);
    if (!isConfidential(url)) throw new Error(`${url.href}: only https may be asked`);
    return fetchKeys(url, asking);
  }

  #turnsOf(namespace: string): Turns {
    const turns = this.#turns.get(namespace) ?? new Turns(`issuers of ${namespace}`, TURNS);
    this.#turns.set(namespace, turns);
    return turns;
  }
}
