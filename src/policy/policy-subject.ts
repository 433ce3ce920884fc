// Whom policies select: a pod, or an endpoint of a ServiceEntry, with its labels and what a ScopeConfig may ask for besides.

import type { LabelLookup } from './label-selector.ts';

/** Beside its labels, what a ScopeConfig's selector may name of a pod. */
export const POD_NAME_LABEL = 'handfast.io/pod-name';
export const POD_IP_LABEL = 'handfast.io/pod-ip';
export const ZONE_LABEL = 'handfast.io/zone';
export const pseudoLabels = [POD_NAME_LABEL, POD_IP_LABEL, ZONE_LABEL] as const;
const TOPOLOGY_ZONE_LABEL = 'topology.kubernetes.io/zone';

const NONE: readonly string[] = Object.freeze([]);

export class PolicySubject implements LabelLookup {
  readonly namespace: string;
  /** `namespace/name`; undefined for an endpoint that is no pod, which no ScopeConfig selects. */
  readonly pod: string | undefined;
  /** Every `key=value` it has, as LabelIndex looks them up. */
  readonly pairs: readonly string[];
  readonly addresses: readonly string[];
  readonly #name: string | undefined;
  readonly #labels: Readonly<Record<string, string>>;

  constructor(of: {
    namespace: string;
    podName: string | undefined;
    labels: Readonly<Record<string, string>>;
    addresses: readonly string[];
  }) {
    this.namespace = of.namespace;
    this.pod = of.podName === undefined ? undefined : `${of.namespace}/${of.podName}`;
    this.#name = of.podName;
    this.#labels = of.labels;
    this.addresses = of.addresses;
    const pairs: string[] = [];
    for (const key of Object.keys(of.labels)) pairs.push(labelPair(key, of.labels[key] ?? ''));
    for (const key of pseudoLabels) for (const value of this.valuesOf(key)) pairs.push(labelPair(key, value));
    this.pairs = pairs;
  }

  /** Of its own labels, as policies' selectors see them. */
  label(key: string): string | undefined {
    return Object.hasOwn(this.#labels, key) ? this.#labels[key] : undefined;
  }

  /** What a ScopeConfig's selector sees under a key. */
  valuesOf(key: string): readonly string[] {
    switch (key) {
      case POD_NAME_LABEL:
        return this.#name === undefined ? NONE : [this.#name];
      case POD_IP_LABEL:
        return this.addresses;
      default: {
        const value = this.label(key === ZONE_LABEL ? TOPOLOGY_ZONE_LABEL : key);
        return value === undefined ? NONE : [value];
      }
    }
  }
}

/** `=` is in no label's key. */
export function labelPair(key: string, value: string): string {
  return `${key}=${value}`;
}
