// How many connections a listener may hold so that the process never runs out of descriptors for its own files and dials.

import { readFileSync } from 'node:fs';

/** A process has two listeners that others reach at most: together they get half of its descriptors. */
const SHARE = 1 / 4;

/** `limits` is the text of /proc/self/limits. Infinity where there is no limit, or it cannot be told. */
export function connectionsWithin(limits: string, of: { descriptorsEach: number }): number {
  const soft = /^Max open files\s+(\d+|unlimited)/m.exec(limits)?.[1];
  if (soft === undefined || soft === 'unlimited') return Number.POSITIVE_INFINITY;
  return Math.max(1, Math.floor((Number(soft) * SHARE) / of.descriptorsEach));
}

/** The same, for this process as it is now. */
export function affordableConnections(of: { descriptorsEach: number }): number {
  try {
    return connectionsWithin(readFileSync('/proc/self/limits', 'utf8'), of);
  } catch {
    // Not Linux: the fixed limit stands alone.
    return Number.POSITIVE_INFINITY;
  }
}
