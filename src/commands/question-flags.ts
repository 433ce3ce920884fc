// Flags of the commands that ask control about the mesh, and how they print times.

import type { z } from 'zod';
import { HandfastError } from '../errors.ts';
import { ask, operatorFlags } from './operator-flags.ts';

export const questionFlags = { ...operatorFlags, output: { ...operatorFlags.output, short: 'o' } } as const;

/** The exit code of a question whose 1 would say that somebody breaks. */
export const NOBODY_TO_ASK = 3;

/** Asks control. Undefined when it cannot be asked, which stderr has been told. */
export async function askControl<T>(
  runDir: string,
  request: { method: 'GET' | 'POST'; path: string; body?: object },
  schema: z.ZodType<T>,
): Promise<T | undefined> {
  try {
    return await ask({ runDir, role: 'control' }, request, schema);
  } catch (error) {
    if (!(error instanceof HandfastError && error.code === 'UNAVAILABLE')) throw error;
    process.stderr.write(`handfast: ${error.message}\n`);
    return undefined;
  }
}

/** Unix milliseconds as a person reads them: in UTC, without the milliseconds. */
export function time(ms: number): string {
  return Number.isFinite(ms) && Math.abs(ms) < 8.64e15 ? `${new Date(ms).toISOString().slice(0, 19)}Z` : String(ms);
}
