// The secrets of one application: asked for when it asks, held from then on so that each change is there before it asks again. In memory alone.

import type { Instance, ReceiptBook } from '../discovery/receipt-book.ts';
import type { SecretAnswer, SecretFeed } from '../discovery/secret-feed.ts';
import { HandfastError } from '../errors.ts';
import { TokenBucket } from '../rate-limit.ts';

export interface HeldSecretsOptions {
  readonly feed: SecretFeed;
  /** Where it is noted which versions the application has, and under whose name. */
  readonly receipts: ReceiptBook;
  readonly instance: Instance;
  /** `namespace/name` of those that are held from the beginning and for ever. */
  readonly preload: readonly string[];
  /** Whether we are still whom these secrets are for: false once our own certificate has ended. */
  readonly isCurrent: () => boolean;
  readonly now: () => number;
  readonly bounds?: Partial<Record<keyof typeof BOUNDS, number>>;
}

const BOUNDS = {
  names: 64,
  /** Requests that wait for an answer or a change. */
  waiting: 128,
} as const;

/** Each is a question to the agent, whether there is such a secret or not. */
const NEW_NAMES = { burst: 100, perSecond: 2 };

export class HeldSecrets {
  readonly #options: HeldSecretsOptions;
  readonly #bounds: Readonly<Record<keyof typeof BOUNDS, number>>;
  /** And the ways to let go of them: the longest unasked first. */
  readonly #names = new Map<string, () => void>();
  readonly #waiting = new Set<(keys: readonly string[]) => void>();
  readonly #unsubscribe: () => void;
  readonly #newNames = new TokenBucket(NEW_NAMES);

  constructor(options: HeldSecretsOptions) {
    this.#options = options;
    this.#bounds = { ...BOUNDS, ...options.bounds };
    this.#unsubscribe = options.feed.subscribe((keys) => {
      for (const key of keys) this.#note(key);
      for (const wake of [...this.#waiting]) wake(keys);
    });
    for (const key of options.preload) this.#names.set(key, options.feed.hold(key));
  }

  get isCurrent(): boolean {
    return this.#options.isCurrent();
  }

  /** Resolves when something is known of the secret and `isEnough` of it, or after the time. Throws RATE_LIMITED where there is no room for another name or wait. */
  async answer(
    key: string,
    { waitMs, isEnough = () => true }: { waitMs: number; isEnough?: (answer: SecretAnswer) => boolean },
  ): Promise<SecretAnswer> {
    this.#hold(key);
    const { feed } = this.#options;
    const isSettled = () => feed.answer(key) !== undefined && isEnough(feed.answer(key));
    if (isSettled() || waitMs <= 0) return feed.answer(key);
    if (this.#waiting.size >= this.#bounds.waiting)
      throw new HandfastError('RATE_LIMITED', `${this.#waiting.size} requests wait for secrets already`);
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#waiting.delete(wake);
        resolve();
      };
      const wake = (keys: readonly string[]) => {
        if (keys.length === 0 || (keys.includes(key) && isSettled())) end();
      };
      const timer = setTimeout(end, waitMs);
      timer.unref();
      this.#waiting.add(wake);
    });
    return feed.answer(key);
  }

  /** The application has read the version, or says that it uses it. */
  used(key: string, { version, as }: { version: string; as: 'loaded' | 'confirmed' }): void {
    const { receipts, instance, now } = this.#options;
    const at = now();
    receipts.used(instance, { secret: key, version, loaded: as === 'loaded' ? at : 0, confirmed: as === 'confirmed' ? at : 0 });
  }

  close(): void {
    this.#unsubscribe();
    for (const wake of [...this.#waiting]) wake([]);
    for (const release of this.#names.values()) release();
    this.#names.clear();
  }

  #note(key: string): void {
    const { feed, receipts, instance, now } = this.#options;
    if (!this.#names.has(key)) return;
    const answer = feed.answer(key);
    // Not known is not taken back.
    if (answer === undefined) return;
    const versions = typeof answer === 'object' ? [...answer.secret.versions.keys()] : [];
    receipts.holds(instance, { secret: key, versions, at: now() });
  }

  #hold(key: string): void {
    const release = this.#names.get(key);
    if (release === undefined) {
      if (this.#newNames.take() > 0) throw new HandfastError('RATE_LIMITED', 'too many secrets that were not asked for before');
      if (this.#names.size >= this.#bounds.names) this.#makeRoom();
    }
    this.#names.delete(key);
    this.#names.set(key, release ?? this.#options.feed.hold(key));
    if (release === undefined) this.#note(key);
  }

  /** Whoever asks for what there is not, under ever other names, makes room for it himself. */
  #makeRoom(): void {
    const { feed, preload } = this.#options;
    for (const [key, release] of this.#names) {
      if (typeof feed.answer(key) === 'object' || preload.includes(key)) continue;
      release();
      this.#names.delete(key);
      return;
    }
    throw new HandfastError('RATE_LIMITED', `${this.#names.size} secrets are held already, which is as many as one application may have`);
  }
}
