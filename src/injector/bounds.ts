// How large a pod may be before anybody looks closer: checking what is wrong with millions of entries would keep every other review waiting.

import { HandfastError } from '../errors.ts';

/** Far above any pod that a node could run, far below what takes long to check. */
const MAX = { entries: 500, values: 50_000, depth: 40 } as const;

/** Throws OBJECT_INVALID for lists too long, values too many or too deep, at the first of them. */
export function assertBounded(pod: unknown): void {
  let values = 0;
  const waiting: { value: object; depth: number }[] = [];
  const visit = (value: unknown, depth: number) => {
    if (++values > MAX.values) throw tooMuch(`more than ${MAX.values} values`);
    if (typeof value !== 'object' || value === null) return;
    if (depth > MAX.depth) throw tooMuch(`more than ${MAX.depth} levels`);
    if (Array.isArray(value) && value.length > MAX.entries)
      throw tooMuch(`a list of ${value.length} entries, where ${MAX.entries} are accepted`);
    waiting.push({ value, depth });
  };
  visit(pod, 0);
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    // Not all at once: an object may have a million members.
    for (const name in next.value) visit(Reflect.get(next.value, name), next.depth + 1);
  }
}

function tooMuch(what: string): HandfastError {
  return new HandfastError('OBJECT_INVALID', `this is no pod that could be checked: it has ${what}: make it smaller`);
}
