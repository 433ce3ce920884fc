// The states of rollouts as they are kept.

import { z } from 'zod';
import { type KeptState, readState } from '../kept-state.ts';
import { type RolloutState, rolloutPhases } from './rollout.ts';

/** `removedAt`: when its ScopeConfig went away, Unix milliseconds; one that comes back soon goes on where it was. */
export interface StoredRollout extends RolloutState {
  readonly removedAt?: number | undefined;
  /** It has no rollout: it is everywhere, and what a rollout that it is given begins from. */
  readonly unplanned?: boolean | undefined;
}

const schema = z.strictObject({
  version: z.literal(1),
  rollouts: z.array(
    z.strictObject({
      key: z.string(),
      revision: z.string(),
      phase: z.enum(rolloutPhases),
      step: z.int(),
      stepSince: z.int(),
      pods: z.array(z.string()),
      baseline: z.strictObject({ connections: z.int(), failures: z.int() }),
      reason: z.string(),
      document: z.string(),
      before: z
        .string()
        .optional()
        .transform((text): string | undefined => text),
      removedAt: z.int().optional(),
      unplanned: z.boolean().optional(),
    }),
  ),
});

export class RolloutStore {
  readonly #kept: KeptState | undefined;

  /** Without a place nothing outlives the process. */
  constructor(kept: KeptState | undefined) {
    this.#kept = kept;
  }

  /** Undefined where nothing has been written. Throws STATE_INVALID, naming the place, for what cannot be read: to forget that something was rolled back would roll it out again. */
  async read(): Promise<readonly StoredRollout[] | undefined> {
    if (this.#kept === undefined) return undefined;
    const saved = await readState(this.#kept, (fields) => schema.parse(fields).rollouts);
    return saved?.map((state) => ({ ...state, before: state.before }));
  }

  /** Throws KUBE_CONFLICT when another control has written meanwhile. */
  async write(rollouts: readonly StoredRollout[]): Promise<void> {
    await this.#kept?.write(JSON.stringify({ version: 1, rollouts }));
  }
}
