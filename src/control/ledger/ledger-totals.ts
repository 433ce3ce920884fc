// How many connections each pod has had, and how many of them policy or a broken proof has ended: the last word of each of its runs, added up. Never taken back.

import { NO_TOTALS, type Totals } from '../../observe/totals.ts';

export type { Totals } from '../../observe/totals.ts';

export type Direction = 'inbound' | 'outbound';
export type TotalsByDirection = Readonly<Record<Direction, Totals>>;

/** Who has told it of which pod (`namespace/name`). */
interface Teller {
  readonly pod: string;
  readonly reporter: string;
}

/** What a run has said last. `zero`: what it had said when it was first heard, long after it began; that much is not counted. */
interface Run extends TotalsByDirection {
  readonly zero?: TotalsByDirection | undefined;
}

export interface SavedTotals extends Teller {
  /** Of runs so long ago that they will not be heard again. */
  readonly earlier: TotalsByDirection;
  readonly runs: readonly (Run & { readonly instance: string })[];
  readonly wasBelieved: boolean;
  readonly heard: number;
}

interface Told {
  earlier: TotalsByDirection;
  /** By run, the longest unheard first: one that is heard again replaces its own word and adds nothing. */
  readonly runs: Map<string, Run>;
  wasBelieved: boolean;
  heard: number;
}

const NONE: TotalsByDirection = { inbound: NO_TOTALS, outbound: NO_TOTALS };
/** Far more than the ledger keeps of a pod, so that what is heard again is known still. */
const MAX_RUNS = 256;

export class LedgerTotals {
  /** By pod, and there by reporter. */
  readonly #byPod = new Map<string, Map<string, Told>>();

  /**
   * The word of one run. What it has said before stands where it was more.
   * `isLate`: it began well before anything of it was heard. What it had counted by then may be from any time, and is nobody's who compares two sums.
   */
  take(run: Teller & { readonly instance: string }, said: TotalsByDirection | undefined, of: { now: number; isLate: boolean }): void {
    const told = this.#of(run);
    told.heard = of.now;
    if (said === undefined) return;
    const before = told.runs.get(run.instance) ?? (of.isLate ? { ...said, zero: said } : NONE);
    told.runs.delete(run.instance);
    told.runs.set(run.instance, {
      ...before,
      inbound: larger(before.inbound, said.inbound),
      outbound: larger(before.outbound, said.outbound),
    });
    if (told.runs.size <= MAX_RUNS) return;
    for (const [instance, oldest] of told.runs) {
      told.runs.delete(instance);
      const totals = counted(oldest);
      told.earlier = { inbound: sum([told.earlier.inbound, totals.inbound]), outbound: sum([told.earlier.outbound, totals.outbound]) };
      return;
    }
  }

  believe(teller: Teller): void {
    this.#of(teller).wasBelieved = true;
  }

  /** Of each pod by the word of `reporter`, or of whoever was believed when it was told. */
  sum(pods: Iterable<{ readonly pod: string; readonly reporter: string | undefined }>, direction?: Direction): Totals {
    const directions: readonly Direction[] = direction === undefined ? ['inbound', 'outbound'] : [direction];
    const all: Totals[] = [];
    for (const { pod, reporter } of pods) {
      for (const [by, { earlier, runs, wasBelieved }] of this.#byPod.get(pod) ?? []) {
        if (reporter === undefined ? !wasBelieved : reporter !== by) continue;
        for (const totals of [earlier, ...[...runs.values()].map(counted)]) all.push(...directions.map((of) => totals[of]));
      }
    }
    return sum(all);
  }

  get saved(): readonly SavedTotals[] {
    return [...this.#byPod].flatMap(([pod, byReporter]) =>
      [...byReporter].map(([reporter, { runs, ...told }]) => ({
        pod,
        reporter,
        ...told,
        runs: [...runs].map(([instance, totals]) => ({ instance, ...totals })),
      })),
    );
  }

  /** Nothing becomes less by it. */
  merge(saved: readonly SavedTotals[]): void {
    for (const { pod, reporter, runs, earlier, wasBelieved, heard } of saved) {
      const told = this.#of({ pod, reporter });
      told.wasBelieved ||= wasBelieved;
      told.heard = Math.max(told.heard, heard);
      told.earlier = largerOf(told.earlier, earlier);
      for (const { instance, ...totals } of runs) {
        const known = told.runs.get(instance);
        // Whoever has heard it from its beginning knows that nothing is to be left out.
        const zero = known === undefined ? totals.zero : known.zero === undefined || totals.zero === undefined ? undefined : known.zero;
        told.runs.set(instance, { ...largerOf(known ?? totals, totals), ...(zero === undefined ? {} : { zero }) });
      }
    }
  }

  forget({ pod, reporter }: Teller): void {
    const byReporter = this.#byPod.get(pod);
    byReporter?.delete(reporter);
    if (byReporter?.size === 0) this.#byPod.delete(pod);
  }

  /** Those that nobody has spoken of since, but for those that are needed still. */
  forgetOld(before: number, isNeeded: (teller: Teller) => boolean): void {
    for (const [pod, byReporter] of [...this.#byPod]) {
      for (const [reporter, { heard }] of [...byReporter])
        if (heard < before && !isNeeded({ pod, reporter })) this.forget({ pod, reporter });
    }
  }

  #of({ pod, reporter }: Teller): Told {
    const byReporter = this.#byPod.get(pod) ?? new Map<string, Told>();
    const told = byReporter.get(reporter) ?? { earlier: NONE, runs: new Map(), wasBelieved: false, heard: 0 };
    this.#byPod.set(pod, byReporter.set(reporter, told));
    return told;
  }
}

function counted({ inbound, outbound, zero = NONE }: Run): TotalsByDirection {
  return { inbound: less(inbound, zero.inbound), outbound: less(outbound, zero.outbound) };
}

function less(a: Totals, b: Totals): Totals {
  return { connections: a.connections - b.connections, failures: a.failures - b.failures };
}

function largerOf(a: TotalsByDirection, b: TotalsByDirection): TotalsByDirection {
  return { inbound: larger(a.inbound, b.inbound), outbound: larger(a.outbound, b.outbound) };
}

function larger(a: Totals, b: Totals): Totals {
  return { connections: Math.max(a.connections, b.connections), failures: Math.max(a.failures, b.failures) };
}

function sum(all: readonly Totals[]): Totals {
  return all.reduce((a, b) => ({ connections: a.connections + b.connections, failures: a.failures + b.failures }), NO_TOTALS);
}
