// Kubernetes label selectors: labels and expressions, all of which must hold
// (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors).

export const labelOperators = ['In', 'NotIn', 'Exists', 'DoesNotExist'] as const;

export interface LabelRequirement {
  readonly key: string;
  readonly operator: (typeof labelOperators)[number];
  readonly values: ReadonlySet<string>;
}

/** Empty: everything. */
export interface LabelSelector {
  readonly matchLabels: ReadonlyMap<string, string>;
  readonly matchExpressions: readonly LabelRequirement[];
}

export interface LabelLookup {
  label(key: string): string | undefined;
  /** None, one, or as many as a pod has addresses. */
  valuesOf(key: string): readonly string[];
}

export function selects(selector: LabelSelector, of: LabelLookup): boolean {
  for (const [key, value] of selector.matchLabels) if (!of.valuesOf(key).includes(value)) return false;
  return selector.matchExpressions.every((requirement) => meets(requirement, of.valuesOf(requirement.key)));
}

export function matchesLabels(wanted: ReadonlyMap<string, string>, of: LabelLookup): boolean {
  for (const [key, value] of wanted) if (of.label(key) !== value) return false;
  return true;
}

/** As in Kubernetes, NotIn holds where there is no such label. */
function meets({ operator, values }: LabelRequirement, found: readonly string[]): boolean {
  switch (operator) {
    case 'In':
      return found.some((value) => values.has(value));
    case 'NotIn':
      return !found.some((value) => values.has(value));
    case 'Exists':
      return found.length > 0;
    case 'DoesNotExist':
      return found.length === 0;
    default:
      return operator satisfies never;
  }
}
