// Which version of a ScopeConfig is rolled out: what holds, and for whom; not how it gets there.

import { createHash } from 'node:crypto';
import type { ScopeConfig } from '../../policy/scope-config.ts';
import type { StoredRollout } from './rollout-store.ts';

const revisions = new WeakMap<ScopeConfig, string>();

/** The same for the same text. */
export function revisionOf(scopeConfig: ScopeConfig): string {
  // Asked for once a second, of objects that hardly ever change.
  const known = revisions.get(scopeConfig);
  if (known !== undefined) return known;
  const { scope, wrapped } = scopeConfig;
  const { scopeConfig: _, ...policy } = wrapped.policy;
  const { rollout: __, ...rest } = scope;
  const text = JSON.stringify([rest, wrapped.kind, policy], (_key, value: unknown) => {
    if (value instanceof Map) return [...value];
    return value instanceof Set ? [...value] : value;
  });
  const revision = createHash('sha256').update(text).digest('base64url');
  revisions.set(scopeConfig, revision);
  return revision;
}

/** A ScopeConfig without a rollout is everywhere at once; it is remembered, for when it is given one. */
export function everywhere(scopeConfig: ScopeConfig, { known, now }: { known: StoredRollout | undefined; now: number }): StoredRollout {
  const revision = revisionOf(scopeConfig);
  if (known?.unplanned === true && known.revision === revision && known.removedAt === undefined) return known;
  const { document, scope } = scopeConfig;
  const nobody = { pods: [], baseline: { connections: 0, failures: 0 }, before: undefined };
  return {
    key: scope.key,
    revision,
    document,
    phase: 'complete',
    step: 0,
    stepSince: now,
    reason: 'it has no rollout',
    ...nobody,
    unplanned: true,
  };
}
