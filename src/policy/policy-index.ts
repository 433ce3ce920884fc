// Policies of one place in their order of precedence, and those of them that hold for somebody.

import { LabelIndex } from './label-index.ts';
import { byPrecedence, type PolicyObject, type Selections, whyNot } from './policy-object.ts';
import { labelPair, type PolicySubject } from './policy-subject.ts';

export class PolicyIndex<T extends PolicyObject> {
  /** In order of precedence. */
  readonly all: readonly T[];
  readonly #byLabels: LabelIndex<T>;

  constructor(policies: readonly T[], compare: (a: T, b: T) => number = byPrecedence) {
    this.all = [...policies].sort(compare);
    this.#byLabels = new LabelIndex(this.all, pairsOf);
    Object.freeze(this);
  }

  /** The ones that hold, in order of precedence. */
  holding(subject: PolicySubject, selections: Selections): readonly T[] {
    const candidates = this.#byLabels.candidates(subject.pairs);
    return candidates.length === 0 ? candidates : candidates.filter((policy) => whyNot(policy, subject, selections) === undefined);
  }
}

function pairsOf({ selector, scopeConfig }: PolicyObject): string[] {
  const pairs: string[] = [];
  for (const [key, value] of selector ?? []) pairs.push(labelPair(key, value));
  for (const [key, value] of scopeConfig?.selector.matchLabels ?? []) pairs.push(labelPair(key, value));
  return pairs;
}
