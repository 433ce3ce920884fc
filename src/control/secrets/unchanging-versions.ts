// What a version's name has once stood for it stands for as long as we run: whoever has confirmed version 7 has confirmed those very contents.

import { keyedDigest } from '../../discovery/secret-version.ts';
import type { WorkloadSecret } from '../../policy/workload-secret.ts';

/** More than ten years of a rotation a day for each of some secrets; then the longest unseen are forgotten. */
const MAX_KNOWN = 50_000;

export class UnchangingVersions {
  /** Keyed digests, by secret and version. */
  readonly #known = new Map<string, string>();

  /** Why the secret cannot be taken; undefined where nothing speaks against it. */
  objection(secret: WorkloadSecret): string | undefined {
    const changed = digestsOf(secret).filter(({ name, digest }) => (this.#known.get(name) ?? digest) !== digest);
    if (changed.length === 0) return undefined;
    const versions = changed.map(({ version }) => version).join(', ');
    return `the contents of version ${versions} have changed: add a version of another name instead`;
  }

  /** It has come into force. */
  learn(secret: WorkloadSecret): void {
    for (const { name, digest } of digestsOf(secret)) {
      this.#known.delete(name);
      this.#known.set(name, digest);
    }
    for (const [oldest] of this.#known) {
      if (this.#known.size <= MAX_KNOWN) break;
      this.#known.delete(oldest);
    }
  }
}

function digestsOf({ key, versions }: WorkloadSecret): { version: string; name: string; digest: string }[] {
  return [...versions].map(([version, data]) => {
    const parts = [...data]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .flatMap(([name, value]) => [Buffer.from(`${name}:${value.length}:`), value]);
    return { version, name: `${key}@${version}`, digest: keyedDigest(Buffer.concat(parts)) };
  });
}
