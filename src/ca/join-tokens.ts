// Join tokens: each lets one node in, once, within its time. Kept as digests, so that the file is worth nothing to whoever reads it.

import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { HandfastError } from '../errors.ts';
import { parseSpiffeId, type SpiffeId } from '../spiffe/spiffe-id.ts';
import { readStateJson, replacePrivate } from '../store/state-file.ts';
import { type Fields, listField, onlyFields, textField, wholeField } from './state-fields.ts';

/** Bounds of a token's life, in milliseconds. */
export const joinTokenTtl = { min: 10_000, max: 7 * 86_400_000 } as const;

const MAX_TOKENS = 10_000;

interface Kept {
  readonly digest: string;
  readonly spiffeId: string;
  readonly expiresAt: number;
}

export class JoinTokens {
  readonly #path: string;
  readonly #now: () => number;
  #tokens: readonly Kept[];
  /** Changes are written one after the other. */
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(path: string, found: { tokens: readonly Kept[]; now: () => number }) {
    this.#path = path;
    this.#tokens = found.tokens;
    this.#now = found.now;
  }

  /** Throws STATE_INVALID. */
  static async open(options: { dir: string; now: () => number }): Promise<JoinTokens> {
    const path = join(options.dir, 'join-tokens.json');
    const kept = await readStateJson(path, parseFile);
    return new JoinTokens(path, { tokens: kept ?? [], now: options.now });
  }

  /** A token for a node of the mesh: agent or control. Throws CONFIG_INVALID for a life out of bounds. */
  async create(of: { id: SpiffeId; ttlMs: number }): Promise<{ token: string; expiresAt: number }> {
    if (!(of.ttlMs >= joinTokenTtl.min && of.ttlMs <= joinTokenTtl.max))
      throw new HandfastError('CONFIG_INVALID', 'a join token lives from 10 s to 7 days');
    const token = randomBytes(32).toString('base64url');
    const expiresAt = this.#now() + of.ttlMs;
    await this.#change((tokens) => {
      if (tokens.length >= MAX_TOKENS) throw new HandfastError('RATE_LIMITED', `${MAX_TOKENS} join tokens are waiting to be used`);
      return [...tokens, { digest: digestOf(token), spiffeId: of.id.uri, expiresAt }];
    });
    return { token, expiresAt };
  }

  /** How many could still let somebody in. */
  get waiting(): number {
    const now = this.#now();
    return this.#tokens.filter(({ expiresAt }) => expiresAt > now).length;
  }

  /**
   * Spends the token on what `use` makes for the node it lets in. On disk it is spent before `use` begins, so that of two who come with it only
   * one gets anything; where `use` throws nobody got anything, and it is good again. Throws JOIN_TOKEN_REFUSED, or what `use` throws.
   */
  async redeem<T>(token: string, use: (id: SpiffeId) => Promise<T>): Promise<T> {
    const spent = await this.#spend(token);
    try {
      return await use(parseSpiffeId(spent.spiffeId));
    } catch (error) {
      // Should this fail, too, the token stays spent, and what went wrong first is what its user hears.
      await this.#change((tokens) => [...tokens, spent]).catch(() => undefined);
      throw error;
    }
  }

  async #spend(token: string): Promise<Kept> {
    const digest = digestOf(token);
    let found: Kept | undefined;
    await this.#change((tokens) => {
      found = tokens.find((kept) => kept.digest === digest);
      // Both at once get the same answer: nobody learns which tokens there are.
      if (found === undefined || found.expiresAt <= this.#now())
        throw new HandfastError('JOIN_TOKEN_REFUSED', 'the join token is unknown, used or over: make another one');
      return tokens.filter((kept) => kept !== found);
    });
    if (found === undefined) throw new HandfastError('JOIN_TOKEN_REFUSED', 'the join token is unknown');
    return found;
  }

  #change(change: (tokens: readonly Kept[]) => readonly Kept[]): Promise<void> {
    const done = this.#writing.then(async () => {
      const now = this.#now();
      const next = change(this.#tokens).filter(({ expiresAt }) => expiresAt > now);
      await replacePrivate(this.#path, `${JSON.stringify({ tokens: next })}\n`);
      this.#tokens = next;
    });
    this.#writing = done.catch(() => undefined);
    return done;
  }
}

function digestOf(token: string): string {
  return createHash('sha256').update(token).digest('hex');
}

function parseFile(fields: Fields): Kept[] {
  onlyFields(fields, ['tokens']);
  return listField(fields, 'tokens', (entry) => {
    onlyFields(entry, ['digest', 'spiffeId', 'expiresAt']);
    const spiffeId = parseSpiffeId(textField(entry, 'spiffeId')).uri;
    return { digest: textField(entry, 'digest', /^[0-9a-f]{64}$/), spiffeId, expiresAt: wholeField(entry, 'expiresAt') };
  });
}
