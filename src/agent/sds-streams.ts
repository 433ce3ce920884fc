// The SDS streams that are open now: what each was sent, has taken or refused. For operators, and for knowing when a whole node has a new bundle.

import { secretNames } from '../discovery/identity-source.ts';
import type { ResourceView } from '../discovery/resource-view.ts';
import { typeUrls } from '../discovery/type-urls.ts';

/** One stream, as an operator sees it. Versions by secret name; `refusal` is the last NACK, times are Unix milliseconds. */
export interface SdsStreamState {
  readonly spiffeId: string;
  readonly peer: string;
  readonly protocol: 'state-of-the-world' | 'delta';
  readonly openedAt: number;
  readonly acked: Readonly<Record<string, string>>;
  readonly refusal?: { readonly at: number; readonly names: readonly string[]; readonly reason: string };
}

/** A stream that has taken a trust bundle once, but not its latest version: `secrets` are the names of those that it lacks, `since` is Unix milliseconds. */
export interface BehindStream {
  readonly spiffeId: string;
  readonly peer: string;
  readonly secrets: readonly string[];
  readonly since: number;
}

/** A stream's side of the registry. */
export interface SdsStreamEntry {
  acked(versions: ReadonlyMap<string, string>): void;
  nacked(versions: ReadonlyMap<string, string>, reason: string): void;
  dropped(names: readonly string[]): void;
  end(): void;
}

interface Entry {
  readonly view: ResourceView;
  readonly acked: Map<string, string>;
  state: SdsStreamState;
  /** Since when it lacks a bundle. */
  behindSince: number | undefined;
}

export class SdsStreams {
  readonly #entries = new Set<Entry>();
  readonly #now: () => number;
  readonly #waiting = new Set<() => void>();
  #waking = false;

  constructor(now: () => number) {
    this.#now = now;
  }

  open(of: { spiffeId: string; peer: string; protocol: SdsStreamState['protocol']; view: ResourceView }): SdsStreamEntry {
    const { spiffeId, peer, protocol, view } = of;
    const state = { spiffeId, peer, protocol, openedAt: this.#now(), acked: {} };
    const entry: Entry = { view, acked: new Map(), state, behindSince: undefined };
    this.#entries.add(entry);
    const look = () => {
      if (lacking(entry).length === 0) entry.behindSince = undefined;
      else entry.behindSince ??= this.#now();
    };
    const stopLooking = view.subscribe(look);
    return {
      acked: (versions) => {
        for (const [name, version] of versions) entry.acked.set(name, version);
        const { refusal, ...state } = entry.state;
        // A refusal is over once something newer of the same names was taken.
        const over = refusal === undefined || refusal.names.every((name) => versions.has(name));
        entry.state = { ...state, acked: Object.fromEntries(entry.acked), ...(over ? {} : { refusal }) };
        look();
        this.#changed();
      },
      nacked: (versions, reason) => {
        entry.state = { ...entry.state, refusal: { at: this.#now(), names: [...versions.keys()], reason } };
      },
      dropped: (names) => {
        // What nobody asks for any more holds nobody up.
        for (const name of names) entry.acked.delete(name);
        const { refusal, ...state } = entry.state;
        const over = refusal === undefined || refusal.names.every((name) => names.includes(name));
        entry.state = { ...state, acked: Object.fromEntries(entry.acked), ...(over ? {} : { refusal }) };
        look();
        this.#changed();
      },
      end: () => {
        stopLooking();
        this.#entries.delete(entry);
        this.#changed();
      },
    };
  }

  get states(): readonly SdsStreamState[] {
    return [...this.#entries].map(({ state }) => state);
  }

  behind(): readonly BehindStream[] {
    return [...this.#entries].flatMap((entry) => {
      const secrets = lacking(entry);
      const { spiffeId, peer } = entry.state;
      return secrets.length === 0 ? [] : [{ spiffeId, peer, secrets, since: entry.behindSince ?? this.#now() }];
    });
  }

  /** Resolves once every stream has the latest trust bundle. */
  async taken(signal: AbortSignal): Promise<void> {
    while (this.behind().length > 0 && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const wake = () => {
          this.#waiting.delete(wake);
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#waiting.add(wake);
        signal.addEventListener('abort', wake, { once: true });
      });
    }
  }

  /** Looked at once a turn of the event loop: thousands of answers come together. */
  #changed(): void {
    if (this.#waiting.size === 0 || this.#waking) return;
    this.#waking = true;
    setImmediate(() => {
      this.#waking = false;
      for (const wake of [...this.#waiting]) wake();
    });
  }
}

function isBundle(name: string): boolean {
  return name === secretNames.bundle || name === secretNames.allBundles || /^spiffe:\/\/[^/]+$/.test(name);
}

/** The bundles that a stream has taken once, but not in their latest version. */
function lacking({ view, acked }: Entry): readonly string[] {
  const resources = view.resources(typeUrls.secret);
  return [...acked].filter(([name, version]) => isBundle(name) && resources?.get(name)?.version !== version).map(([name]) => name);
}
