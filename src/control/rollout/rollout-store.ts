// The states of rollouts on disk.

import { join } from 'node:path';
import { z } from 'zod';
import { readStateJson, replacePrivate } from '../../store/state-file.ts';
import { type RolloutState, rolloutPhases } from './rollout.ts';

/** `removedAt`: when its ScopeConfig went away, Unix milliseconds; one that comes back soon goes on where it was. */
export interface StoredRollout extends RolloutState {
  readonly removedAt?: number | undefined;
  /** It has no rollout: it is everywhere, and what a rollout that it is given begins from. */
  readonly unplanned?: boolean | undefined;
}

const FILE = 'rollouts.json';

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
  readonly #file: string | undefined;

  /** Without a directory nothing outlives the process. */
  constructor(stateDir: string | undefined) {
    this.#file = stateDir === undefined ? undefined : join(stateDir, FILE);
  }

  /** Throws STATE_INVALID, naming the file, for one that cannot be read: to forget that something was rolled back would roll it out again. */
  async read(): Promise<readonly StoredRollout[]> {
    if (this.#file === undefined) return [];
    const saved = await readStateJson(this.#file, (fields) => schema.parse(fields).rollouts);
    return (saved ?? []).map((state) => ({ ...state, before: state.before }));
  }

  async write(rollouts: readonly StoredRollout[]): Promise<void> {
    if (this.#file !== undefined) await replacePrivate(this.#file, JSON.stringify({ version: 1, rollouts }));
  }
}
