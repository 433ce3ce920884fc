// What became of each policy, written where its author looks: in its status the condition `Accepted`, and `Programmed` (Gateway API's name for it), which says how many sidecars have it.
// Written only where they differ, one at a time, and never waited for.

import { setTimeout as delay } from 'node:timers/promises';
import { Backoff } from '../../backoff.ts';
import { HandfastError, messageOf } from '../../errors.ts';
import type { KubeApi, KubeObject } from '../../kube/api.ts';
import type { LeaderLease } from '../../kube/leader-lease.ts';
import type { Log } from '../../observe/log.ts';
import { isJsonObject } from '../../spiffe/strict-json.ts';
import type { Reach } from '../policy-reach.ts';

/** As the API server has it: where it is written, of which version, and what is said of it so far. */
export interface StatusSubject {
  /** Of its status subresource. */
  readonly path: string;
  readonly generation: number;
  readonly conditions: readonly KubeObject[];
}

export interface PolicyVerdict extends StatusSubject {
  /** Why this version is not in force; undefined if it is. */
  readonly refusal: string | undefined;
  /** How many of those that it selects have it; undefined where nobody counts, `unknown` where what is said of that stays. */
  readonly reach?: Reach | 'unknown' | undefined;
  /** What holds in place of a version that is refused, where that is not what it is for policies. */
  readonly otherwise?: string;
}

/** The API server's limit on a condition's message. */
const MAX_MESSAGE = 32_768;
const MAX_WAIT_MS = 60_000;

export interface PolicyStatusOptions {
  readonly api: KubeApi;
  readonly log: Log;
  /** Unix milliseconds. */
  readonly now: () => number;
  /** Of several controls whoever holds it writes; without it, we do. */
  readonly lease?: Pick<LeaderLease, 'leads' | 'leading'> | undefined;
}

interface Due {
  readonly verdict: PolicyVerdict;
  /** Of its own, so that one that cannot be written holds nobody else up. */
  readonly backoff: Backoff;
  /** `performance.now()` of its next try. */
  notBefore: number;
}

export class PolicyStatus {
  readonly #options: PolicyStatusOptions;
  /** By path: what is still to be written, whoever has waited longest first. */
  #due = new Map<string, Due>();
  #wake = new AbortController();
  #said = '';

  constructor(options: PolicyStatusOptions) {
    this.#options = options;
  }

  /** Of all policies there are: what was to be written of any other is forgotten. */
  replace(verdicts: readonly PolicyVerdict[]): void {
    const wanted = new Map(verdicts.filter((verdict) => !isWritten(verdict)).map((verdict) => [verdict.path, verdict]));
    const due = new Map<string, Due>();
    for (const [path, known] of this.#due) {
      const verdict = wanted.get(path);
      if (verdict !== undefined) due.set(path, { ...known, verdict });
    }
    for (const [path, verdict] of wanted)
      if (!due.has(path)) due.set(path, { verdict, backoff: new Backoff({ baseMs: 500, maxMs: 60_000 }), notBefore: 0 });
    this.#due = due;
    this.#wake.abort();
  }

  /** Writes until the signal aborts; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { lease } = this.#options;
    const unsubscribe = lease?.leading.subscribe(() => this.#wake.abort());
    while (!signal.aborted) {
      const now = performance.now();
      const all = lease?.leads === false ? [] : [...this.#due.values()];
      const next = all.find(({ notBefore }) => notBefore <= now);
      if (next === undefined) {
        this.#wake = new AbortController();
        const waitMs = Math.min(MAX_WAIT_MS, ...all.map(({ notBefore }) => notBefore - now));
        await delay(waitMs, undefined, { signal: AbortSignal.any([signal, this.#wake.signal]), ref: false }).catch(() => undefined);
      } else await this.#try(next, signal);
    }
    unsubscribe?.();
  }

  async #try(due: Due, signal: AbortSignal): Promise<void> {
    const { verdict } = due;
    this.#due.delete(verdict.path);
    try {
      await this.#write(verdict, signal);
      this.#said = '';
    } catch (error) {
      if (signal.aborted) return;
      const code = error instanceof HandfastError ? error.code : undefined;
      // It is gone, or has changed meanwhile: then we hear of that, and judge again.
      if (code === 'KUBE_NOT_FOUND' || code === 'KUBE_CONFLICT') return;
      due.notBefore = performance.now() + due.backoff.next();
      if (!this.#due.has(verdict.path)) this.#due.set(verdict.path, due);
      const reason = messageOf(error).replace(verdict.path, '…');
      if (reason !== this.#said)
        this.#options.log.warn({ path: verdict.path, reason }, 'the status of a policy is not written; it is judged all the same');
      this.#said = reason;
    }
  }

  async #write(verdict: PolicyVerdict, signal: AbortSignal): Promise<void> {
    const { path, generation, conditions } = verdict;
    const own = ownConditions(verdict).map((condition) => {
      const known = conditions.find(({ type }) => type === condition.type);
      const lastTransitionTime =
        known?.status === condition.status ? known.lastTransitionTime : new Date(this.#options.now()).toISOString();
      return { ...condition, observedGeneration: generation, lastTransitionTime };
    });
    // Others may have conditions of their own there; a merge patch replaces a list whole.
    const stays = verdict.reach === 'unknown' && verdict.refusal === undefined;
    const all = [...conditions.filter(({ type }) => type !== ACCEPTED && (type !== PROGRAMMED || stays)), ...own];
    await this.#options.api.request({ method: 'PATCH', path, body: { status: { conditions: all } }, signal });
  }
}

interface Condition {
  readonly type: string;
  readonly status: 'True' | 'False';
  readonly reason: string;
  readonly message: string;
}

const ACCEPTED = 'Accepted';
const PROGRAMMED = 'Programmed';

function isWritten(verdict: PolicyVerdict): boolean {
  const { generation, conditions, reach, refusal } = verdict;
  const own = ownConditions(verdict);
  return (
    own.every(({ type, status, message }) => {
      const known = conditions.find((condition) => condition.type === type);
      return known?.status === status && known.message === message && known.observedGeneration === generation;
    }) &&
    // What is no longer said must not stay there.
    (own.some(({ type }) => type === PROGRAMMED) ||
      (reach === 'unknown' && refusal === undefined) ||
      !conditions.some(({ type }) => type === PROGRAMMED))
  );
}

function ownConditions({ refusal, reach, otherwise }: PolicyVerdict): Condition[] {
  const accepted: Condition = {
    type: ACCEPTED,
    status: refusal === undefined ? 'True' : 'False',
    reason: refusal === undefined ? 'Accepted' : 'Refused',
    message: messageFor(refusal, otherwise),
  };
  if (reach === undefined || reach === 'unknown' || refusal !== undefined) return [accepted];
  const { selected, upToDate } = reach;
  const isDone = upToDate === selected;
  const message = `${upToDate}/${selected} proxies up to date`;
  return [accepted, { type: PROGRAMMED, status: isDone ? 'True' : 'False', reason: isDone ? 'Programmed' : 'Pending', message }];
}

const OF_POLICIES =
  'Its last version that could be read stays in force; if there was none, an AuthorizationPolicy or PeerAuthentication (in a ScopeConfig too) closes whom it selects, and a RequestAuthentication lets no token in';

function messageFor(refusal: string | undefined, otherwise = OF_POLICIES): string {
  return refusal === undefined ? 'in force' : `${refusal}. ${otherwise}`.slice(0, MAX_MESSAGE);
}

/** Undefined for an object without what a status needs. `path`: of its collection, in all namespaces. */
export function statusSubject(path: string, { metadata, status }: KubeObject): StatusSubject | undefined {
  const { namespace, name, generation } = isJsonObject(metadata) ? metadata : {};
  if (typeof name !== 'string' || typeof generation !== 'number') return undefined;
  const conditions = isJsonObject(status) && Array.isArray(status.conditions) ? status.conditions.filter(isJsonObject) : [];
  const cut = path.lastIndexOf('/');
  const within = typeof namespace === 'string' ? `/namespaces/${namespace}` : '';
  return { path: `${path.slice(0, cut)}${within}${path.slice(cut)}/${name}/status`, generation, conditions };
}
