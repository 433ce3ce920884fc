// Objects to resolved mesh, again and again: only namespaces whose objects changed are resolved anew, and only what came out differently is a change.

import { isDeepStrictEqual } from 'node:util';
import type { Authorization } from '../../policy/authorization.ts';
import type { FetchedKeys } from '../../policy/jwt-rules.ts';
import type { MeshConfig } from '../../policy/kinds/mesh-config.ts';
import type { Service, TrafficPolicy, Workload } from '../../policy/model.ts';
import { indexPolicies, type NamespacePolicies } from '../../policy/namespace-policies.ts';
import type { Selections } from '../../policy/policy-object.ts';
import type { MeshObjects } from '../objects/mesh-objects.ts';
import { byNamespace, emptyNamespace, type NamespaceObjects, sameObjects, samePolicies } from './namespace-objects.ts';
import { type ResolvedNamespace, resolveNamespace } from './resolve-namespace.ts';

/** New or changed ones by key, and the keys that are gone. */
export interface Changed<T> {
  readonly upserts: ReadonlyMap<string, T>;
  readonly removed: readonly string[];
}

export interface ResolvedChange {
  readonly workloads: Changed<Workload>;
  readonly services: Changed<Service>;
  readonly policies: Changed<TrafficPolicy>;
  readonly authorizations: Changed<Authorization>;
}

interface Resolved {
  readonly objects: NamespaceObjects;
  readonly output: ResolvedNamespace;
}

const EMPTY: ResolvedNamespace = { workloads: new Map(), services: new Map(), policies: new Map(), authorizations: new Map() };

const NO_KEYS: FetchedKeys = new Map();

export class MeshResolver {
  readonly #trustDomain: string;
  #resolved: ReadonlyMap<string, Resolved> = new Map();
  #config: MeshConfig | undefined;
  #selections: Selections = new Map();
  #keys: FetchedKeys = NO_KEYS;

  constructor(options: { trustDomain: string }) {
    this.#trustDomain = options.trustDomain;
  }

  /** What is different since the last time; the first time, everything. Throws nothing that parsing lets through. */
  replace(objects: MeshObjects, selections: Selections, keys: FetchedKeys = NO_KEYS): ResolvedChange {
    const namespaces = byNamespace(objects);
    const { rootNamespace } = objects.config;
    const rootObjects = namespaces.get(rootNamespace) ?? emptyNamespace();
    const everything =
      this.#config !== objects.config ||
      this.#keys !== keys ||
      !samePolicies(this.#resolved.get(rootNamespace)?.objects ?? emptyNamespace(), rootObjects);
    const reselected = reselectedNamespaces(this.#selections, selections);
    const root = indexPolicies(rootObjects);
    const change = {
      workloads: newChange<Workload>(),
      services: newChange<Service>(),
      policies: newChange<TrafficPolicy>(),
      authorizations: newChange<Authorization>(),
    };
    const next = new Map<string, Resolved>();
    for (const [namespace, own] of namespaces) {
      const before = this.#resolved.get(namespace);
      if (before !== undefined && !everything && !reselected.has(namespace) && sameObjects(before.objects, own)) {
        next.set(namespace, before);
        continue;
      }
      const policies: NamespacePolicies = namespace === rootNamespace ? root : indexPolicies(own);
      const fresh = resolveNamespace(own, {
        config: objects.config,
        trustDomain: this.#trustDomain,
        within: { own: policies, root },
        selections,
        keys,
      });
      next.set(namespace, { objects: own, output: differences(before?.output ?? EMPTY, fresh, change) });
    }
    for (const [namespace, { output }] of this.#resolved) if (!next.has(namespace)) differences(output, EMPTY, change);
    this.#resolved = next;
    this.#config = objects.config;
    this.#selections = selections;
    this.#keys = keys;
    return change;
  }
}

/** Namespaces of the pods that a rollout came to, or left. */
function reselectedNamespaces(before: Selections, after: Selections): Set<string> {
  const namespaces = new Set<string>();
  const note = (some: Selections, others: Selections) => {
    for (const [key, pods] of some) {
      const known = others.get(key);
      if (known === pods) continue;
      for (const pod of pods) if (known?.has(pod) !== true) namespaces.add(pod.slice(0, pod.indexOf('/')));
    }
  };
  note(after, before);
  note(before, after);
  return namespaces;
}

interface OpenChange<T> {
  readonly upserts: Map<string, T>;
  readonly removed: string[];
}

function newChange<T>(): OpenChange<T> {
  return { upserts: new Map(), removed: [] };
}

/** Notes what differs, and returns the new state with what is equal kept as the object that it was. */
function differences(
  before: ResolvedNamespace,
  after: ResolvedNamespace,
  change: { [K in keyof ResolvedChange]: OpenChange<ResolvedChange[K] extends Changed<infer T> ? T : never> },
): ResolvedNamespace {
  return {
    workloads: compare(before.workloads, after.workloads, change.workloads),
    services: compare(before.services, after.services, change.services),
    policies: compare(before.policies, after.policies, change.policies),
    authorizations: compare(before.authorizations, after.authorizations, change.authorizations),
  };
}

function compare<T>(before: ReadonlyMap<string, T>, after: ReadonlyMap<string, T>, change: OpenChange<T>): ReadonlyMap<string, T> {
  if (before.size === 0) {
    for (const [key, value] of after) change.upserts.set(key, value);
    return after;
  }
  const kept = new Map<string, T>();
  for (const [key, value] of after) {
    const known = before.get(key);
    if (known !== undefined && isDeepStrictEqual(known, value)) {
      kept.set(key, known);
    } else {
      kept.set(key, value);
      change.upserts.set(key, value);
    }
  }
  for (const key of before.keys()) if (!after.has(key)) change.removed.push(key);
  return kept;
}
