// Fields that Istio has and Handfast does not: refused by name, with the way out. Ignoring one could open what its author meant to close.

import { z } from 'zod';

/** A field that may not stand there. `instead`: why, and what to do. It is not listed among the accepted ones. */
export function unsupported(instead: string) {
  return z.never({ error: `is not supported: ${instead}` }).optional();
}

/** The same for several fields with one reason. */
export function allUnsupported<const K extends string>(names: readonly K[], instead: string): Record<K, ReturnType<typeof unsupported>> {
  const shape: Partial<Record<K, ReturnType<typeof unsupported>>> = {};
  for (const name of names) shape[name] = unsupported(instead);
  // Every name was just set.
  return shape as Record<K, ReturnType<typeof unsupported>>;
}
