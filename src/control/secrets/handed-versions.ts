// Which versions have left control for which workload: what it says of them later is believed, whether they are still there or not.

/** More than all that is handed out in a mesh of thousands of workloads; then the longest ago are forgotten. */
const MAX_KNOWN = 200_000;

export interface Handed {
  /** SPIFFE ID. */
  readonly id: string;
  /** `namespace/name` of the secret. */
  readonly key: string;
  readonly version: string;
}

export class HandedVersions {
  readonly #max: number;
  /** The longest ago first. */
  readonly #known = new Set<string>();

  constructor(max = MAX_KNOWN) {
    this.#max = max;
  }

  add(handed: Handed): void {
    const name = nameOf(handed);
    this.#known.delete(name);
    this.#known.add(name);
    const [oldest] = this.#known;
    if (this.#known.size > this.#max && oldest !== undefined) this.#known.delete(oldest);
  }

  has(handed: Handed): boolean {
    return this.#known.has(nameOf(handed));
  }
}

function nameOf({ id, key, version }: Handed): string {
  return `${id} ${key}@${version}`;
}
