// Objects as rollouts have them: whom each has come to, and beside one that is on its way the one that was everywhere before, for everybody else.

import type { Selections } from '../../policy/policy-object.ts';
import type { ScopeConfig, WrappedPolicy } from '../../policy/scope-config.ts';
import type { EffectiveObjects, MeshObjects } from '../objects/mesh-objects.ts';
import { parseObjects } from '../objects/parse-objects.ts';
import type { RolloutState } from './rollout.ts';

/** Behind a ScopeConfig's name: the one before it. No object has such a name. */
const BEFORE = '@before';

/** Parts that are the same as in `before` are the objects that they were. */
export function withRollouts(
  objects: MeshObjects,
  {
    states,
    before,
    podsOf,
    unreadable,
  }: {
    states: readonly RolloutState[];
    before: EffectiveObjects | undefined;
    /** Every pod that a ScopeConfig selects. */
    podsOf: (scopeConfig: ScopeConfig, objects: MeshObjects) => readonly string[];
    unreadable: (key: string) => void;
  },
): EffectiveObjects {
  const selections = new Map<string, ReadonlySet<string>>();
  const earlier: ScopeConfig[] = [];
  for (const state of states) {
    const pods = new Set(state.pods);
    selections.set(state.key, pods);
    if (state.before === undefined) continue;
    const scopeConfig = readBefore(state.before, objects);
    if (scopeConfig === undefined) {
      unreadable(state.key);
      continue;
    }
    earlier.push(scopeConfig);
    selections.set(scopeConfig.scope.key, new Set(podsOf(scopeConfig, objects).filter((pod) => !pods.has(pod))));
  }
  return {
    objects: withEarlier(objects, earlier),
    selections: sameWhereSame(selections, before?.selections),
  };
}

/** With the source's own objects as they are, unless there is something to add. */
const composed = new WeakMap<MeshObjects, MeshObjects>();

function withEarlier(objects: MeshObjects, earlier: readonly ScopeConfig[]): MeshObjects {
  if (earlier.length === 0) return objects;
  const known = composed.get(objects);
  const wanted = [...objects.scopeConfigs, ...earlier];
  if (known !== undefined && known.scopeConfigs.length === wanted.length && known.scopeConfigs.every((one, index) => one === wanted[index]))
    return known;
  const all = Object.freeze({ ...objects, scopeConfigs: wanted });
  composed.set(objects, all);
  return all;
}

const read = new Map<string, ScopeConfig>();
const MAX_READ = 1_000;

/** Parsed once: the same text is the same object. One that this build does not take any more holds for nobody. */
function readBefore(document: string, { config }: MeshObjects): ScopeConfig | undefined {
  const known = read.get(document);
  if (known !== undefined) return known;
  let parsed: ScopeConfig | undefined;
  try {
    [parsed] = parseObjects([{ name: 'before.json', text: document }], config).scopeConfigs;
  } catch {
    return undefined;
  }
  if (parsed === undefined) return undefined;
  const named = renamed(parsed);
  if (read.size >= MAX_READ) read.clear();
  read.set(document, named);
  return named;
}

function renamed(of: ScopeConfig): ScopeConfig {
  const scope = { ...of.scope, key: `${of.scope.key}${BEFORE}`, name: `${of.scope.name}${BEFORE}` };
  return { ...of, name: scope.name, scope, wrapped: rescoped(of.wrapped, scope) };
}

function rescoped(wrapped: WrappedPolicy, scopeConfig: ScopeConfig['scope']): WrappedPolicy {
  switch (wrapped.kind) {
    case 'PeerAuthentication':
      return { kind: wrapped.kind, policy: { ...wrapped.policy, scopeConfig } };
    case 'AuthorizationPolicy':
      return { kind: wrapped.kind, policy: { ...wrapped.policy, scopeConfig } };
    case 'DestinationRule':
      return { kind: wrapped.kind, policy: { ...wrapped.policy, scopeConfig } };
    default:
      return wrapped satisfies never;
  }
}

function sameWhereSame(next: ReadonlyMap<string, ReadonlySet<string>>, before: Selections | undefined): Selections {
  if (before === undefined) return next;
  const merged = new Map(
    [...next].map(([key, pods]) => {
      const known = before.get(key);
      return [key, known !== undefined && known.size === pods.size && [...pods].every((pod) => known.has(pod)) ? known : pods] as const;
    }),
  );
  const same = merged.size === before.size && [...merged].every(([key, pods]) => before.get(key) === pods);
  return same ? before : merged;
}
