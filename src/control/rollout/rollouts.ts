// Every ScopeConfig with a rollout, taken forward once a second: watched by the mesh's own ledger, written down before it takes effect. What comes out is objects and
// whom their rollouts have come to, as one value.

import { isDeepStrictEqual } from 'node:util';
import { HandfastError, messageOf } from '../../errors.ts';
import type { Log } from '../../observe/log.ts';
import type { ScopeConfig } from '../../policy/scope-config.ts';
import { Snapshot } from '../../snapshot.ts';
import type { Totals } from '../ledger/ledger-totals.ts';
import type { EffectiveObjects, MeshObjects, ObjectSource } from '../objects/mesh-objects.ts';
import { scopedPods } from '../resolve/scoped-pods.ts';
import { advance, type RolloutState, type RolloutWorld } from './rollout.ts';
import { withRollouts } from './rollout-objects.ts';
import { everywhere, revisionOf } from './rollout-revision.ts';
import { RolloutSamples } from './rollout-samples.ts';
import type { RolloutStore, StoredRollout } from './rollout-store.ts';

export interface RolloutsOptions {
  readonly source: ObjectSource;
  readonly totals: (pods: ReadonlySet<string>, direction: 'inbound' | 'outbound') => Totals;
  /** Whether no pod of these (`namespace/name`) is on its way to other switches. */
  readonly inForce: (pods: readonly string[]) => boolean;
  /** How long what a sidecar sees may be on its way here. */
  readonly reportsWithinMs: number;
  readonly store: RolloutStore;
  /** Of several controls one takes rollouts forward; the others publish what it has written down. */
  readonly isOurs: () => boolean;
  readonly log: Log;
  /** Unix milliseconds. */
  readonly now: () => number;
}

const TICK_MS = 1_000;
/** A file that is moved or written anew is away for a moment: what was rolled out is not to begin again. */
const REMEMBERED_MS = 10 * 60_000;
const ROLLED_BACK_REMEMBERED_MS = 30 * 24 * 3_600_000;

export class Rollouts {
  /** What is to be resolved. Other changes of objects do not wait for rollouts, nor for a disk. */
  readonly effective = new Snapshot<EffectiveObjects>();
  #madeOf: MeshObjects | undefined;
  readonly #options: RolloutsOptions;
  readonly #samples = new RolloutSamples();
  /** Looked for again when the objects are others. */
  readonly #eligible = new WeakMap<ScopeConfig, { objects: MeshObjects; pods: readonly string[] }>();
  #states: ReadonlyMap<string, StoredRollout> = new Map();
  #stepping: Promise<void> | undefined;
  #again = false;
  #failed = '';
  /** What is in force is not what was written down. */
  #unsaved = false;
  /** Another control may have written since we read. */
  #mustRead = false;
  #wasOurs = false;
  readonly #unreadable = new Set<string>();

  constructor(options: RolloutsOptions) {
    this.#options = options;
  }

  /** What was read, of which the effective ones were made. */
  get madeOf(): MeshObjects | undefined {
    return this.#madeOf;
  }

  get states(): readonly RolloutState[] {
    return shown(this.#states);
  }

  /** Reads what is known, and takes everything forward until the signal aborts. Throws STATE_INVALID for a file that cannot be read. */
  async start(signal: AbortSignal): Promise<void> {
    this.#take(await this.#options.store.read());
    this.#wasOurs = this.#options.isOurs();
    await this.step();
    const again = () => void this.step();
    const timer = setInterval(again, TICK_MS);
    timer.unref();
    const unsubscribe = this.#options.source.objects.subscribe(again);
    signal.addEventListener('abort', () => {
      clearInterval(timer);
      unsubscribe();
    });
  }

  /** Takes every rollout as far as it may go now. */
  async step(): Promise<void> {
    // What changes while one is being written down is looked at right after; other objects do not wait for that.
    this.#again = true;
    const objects = this.#options.source.objects.current;
    if (this.#stepping !== undefined && objects !== undefined) this.#publish(objects, this.#withoutProgress(this.#next(objects)));
    this.#stepping ??= this.#steps().finally(() => {
      this.#stepping = undefined;
    });
    return this.#stepping;
  }

  /** Another control has written, or leads no more. */
  async readAgain(): Promise<void> {
    this.#mustRead = true;
    await this.step();
  }

  async #steps(): Promise<void> {
    while (this.#again) {
      this.#again = false;
      const objects = this.#options.source.objects.current;
      if (objects !== undefined) await this.#step(objects);
    }
  }

  async #step(objects: MeshObjects): Promise<void> {
    const isOurs = this.#options.isOurs();
    if (isOurs && !this.#wasOurs) this.#mustRead = true;
    if (this.#mustRead) await this.#read();
    this.#wasOurs = isOurs && !this.#mustRead;
    const next = this.#next(objects);
    if (!this.#wasOurs) {
      this.#publish(objects, this.#withoutProgress(next));
      return;
    }
    const changed = [...next.values()].filter((state) => this.#states.get(state.key) !== state);
    const gone = [...this.#states.keys()].some((key) => !next.has(key));
    const worthSaving =
      this.#unsaved ||
      gone ||
      changed.some((state) => !isDeepStrictEqual({ ...state, reason: '' }, { ...this.#states.get(state.key), reason: '' }));
    let taken = next;
    if (worthSaving) {
      const held = this.#withoutProgress(next);
      this.#publish(objects, held);
      this.#unsaved = !(await this.#save([...next.values()]));
      if (this.#unsaved) taken = held;
    }
    for (const state of changed) if (taken.get(state.key) === state) this.#say(state);
    this.#states = taken;
    // Others are on their way: they were published with what was held.
    if (this.#options.source.objects.current === objects) this.#publish(objects, taken);
  }

  #next(objects: MeshObjects): Map<string, StoredRollout> {
    const now = this.#options.now();
    const next = new Map<string, StoredRollout>();
    for (const scopeConfig of objects.scopeConfigs) {
      const { key } = scopeConfig.scope;
      const known = this.#returned(key, scopeConfig);
      const world = this.#worldOf(scopeConfig, { objects, known });
      next.set(key, world === undefined ? everywhere(scopeConfig, { known: this.#states.get(key), now }) : advance(known, key, world));
    }
    for (const [key, state] of this.#states) {
      if (next.has(key)) continue;
      const removedAt = state.removedAt ?? now;
      const remembered = state.phase === 'rolled back' ? ROLLED_BACK_REMEMBERED_MS : REMEMBERED_MS;
      if (now - removedAt < remembered) next.set(key, state.removedAt === undefined ? { ...state, removedAt } : state);
    }
    this.#samples.keep(next);
    return next;
  }

  /** What is known of a rollout. One that was away goes on where it was, if it is the same one; another begins from nothing. */
  #returned(key: string, scopeConfig: ScopeConfig): RolloutState | undefined {
    const known = this.#states.get(key);
    if (known === undefined) return undefined;
    const wasAway = known.removedAt !== undefined;
    if (!wasAway && known.unplanned === undefined) return known;
    return wasAway && known.revision !== revisionOf(scopeConfig) ? undefined : planned(known);
  }

  #worldOf(
    scopeConfig: ScopeConfig,
    { objects, known }: { objects: MeshObjects; known: RolloutState | undefined },
  ): RolloutWorld | undefined {
    const plan = scopeConfig.scope.rollout;
    if (plan === undefined) return undefined;
    const now = this.#options.now();
    // A rule of the client's side makes calls fail, the others make callers fail.
    const direction = scopeConfig.wrapped.kind === 'DestinationRule' ? 'outbound' : 'inbound';
    const totals = (pods: readonly string[]) => this.#options.totals(new Set(pods), direction);
    const windowMs = (plan.failureBudget?.windowSeconds ?? 0) * 1_000;
    return {
      plan,
      revision: revisionOf(scopeConfig),
      document: scopeConfig.document,
      eligible: this.#eligibleFor(scopeConfig, objects),
      totals,
      samples: known === undefined ? [] : this.#samples.take(known, { totals, windowMs, now }),
      inForce: this.#options.inForce,
      reportsWithinMs: this.#options.reportsWithinMs,
      now,
    };
  }

  #eligibleFor(scopeConfig: ScopeConfig, objects: MeshObjects): readonly string[] {
    const known = this.#eligible.get(scopeConfig);
    if (known?.objects === objects) return known.pods;
    const pods = scopedPods(objects, scopeConfig);
    this.#eligible.set(scopeConfig, { objects, pods });
    return pods;
  }

  /**
   * Of what is not written down (yet, or by us): what takes back takes effect all the same, what goes on does not, and what is new has come to nobody. Where another control
   * takes rollouts forward, it alone takes them back too.
   */
  #withoutProgress(next: ReadonlyMap<string, StoredRollout>): Map<string, StoredRollout> {
    const held = [...next.values()].map((state): StoredRollout => {
      const known = this.#states.get(state.key);
      const takesBack = this.#wasOurs && state.phase === 'rolled back';
      if (state === known || takesBack || state.removedAt !== undefined) return state;
      if (known !== undefined && known.revision === state.revision) return known;
      return { ...state, pods: [], reason: 'waits: its state is not saved' };
    });
    return new Map(held.map((state) => [state.key, state]));
  }

  /** Until it has been read, nothing is taken forward. */
  async #read(): Promise<void> {
    this.#mustRead = false;
    try {
      this.#take(await this.#options.store.read());
    } catch (error) {
      this.#mustRead = true;
      const reason = messageOf(error);
      if (reason !== this.#failed) this.#options.log.error({ reason }, 'rollouts stand still: their state cannot be read');
      this.#failed = reason;
    }
  }

  /** Where somebody has removed it, what we know is better than nothing: it is written down again. */
  #take(stored: readonly StoredRollout[] | undefined): void {
    if (stored !== undefined) this.#states = new Map(stored.map((state) => [state.key, state]));
    else this.#unsaved = this.#states.size > 0;
  }

  async #save(states: readonly StoredRollout[]): Promise<boolean> {
    try {
      await this.#options.store.write(states);
      this.#failed = '';
      return true;
    } catch (error) {
      // Another control has written: it leads, or has led while we could not.
      if (error instanceof HandfastError && error.code === 'KUBE_CONFLICT') this.#mustRead = true;
      const reason = messageOf(error);
      if (reason !== this.#failed) this.#options.log.error({ reason }, 'rollouts stand still: their state cannot be saved');
      this.#failed = reason;
      return false;
    }
  }

  #say(state: StoredRollout): void {
    const { key, phase, step, pods, reason, revision, removedAt, unplanned } = state;
    const before = this.#states.get(key);
    if (removedAt !== undefined || unplanned === true) return;
    if (before?.phase === phase && before.step === step && before.revision === revision && before.pods === pods) return;
    const record = { scopeConfig: key, phase, step: step + 1, pods: pods.length, reason };
    if (phase === 'rolled back') this.#options.log.warn(record, 'rollout rolled back');
    else this.#options.log.info(record, 'rollout');
  }

  #publish(objects: MeshObjects, states: ReadonlyMap<string, StoredRollout>): void {
    const before = this.effective.current;
    const unreadable = (key: string) => {
      if (this.#unreadable.has(key)) return;
      this.#unreadable.add(key);
      this.#options.log.error(
        { scopeConfig: key },
        'what was everywhere before this rollout cannot be read any more, and holds for nobody',
      );
    };
    const podsOf = this.#eligibleFor.bind(this);
    this.#madeOf = objects;
    const next = withRollouts(objects, { states: shown(states), before, podsOf, unreadable });
    if (before === undefined || next.objects !== before.objects || next.selections !== before.selections) this.effective.replace(next);
  }
}

/** Rollouts alone, and those that are there. */
function shown(states: ReadonlyMap<string, StoredRollout>): RolloutState[] {
  return [...states.values()].filter(({ removedAt, unplanned }) => removedAt === undefined && unplanned !== true);
}

function planned({ removedAt: _, unplanned: __, ...state }: StoredRollout): RolloutState {
  return state;
}
