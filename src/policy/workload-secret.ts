// A secret of the mesh: versions side by side, so that whoever uses it can go over from one to the next.

/** Values by their names. */
export type SecretData = ReadonlyMap<string, Buffer>;

export interface WorkloadSecret {
  /** `namespace/name` */
  readonly key: string;
  /** One of `versions`: what is to be used now. */
  readonly current: string;
  /** By their names, the oldest first. */
  readonly versions: ReadonlyMap<string, SecretData>;
}

export const secretBounds = {
  versions: 16,
  /** Of one version. */
  values: 32,
  valueBytes: 64 * 1024,
  /** All versions together. */
  secretBytes: 256 * 1024,
} as const;

/** Its names and values, in bytes. */
export function bytesOf({ versions }: Pick<WorkloadSecret, 'versions'>): number {
  let bytes = 0;
  for (const data of versions.values()) for (const [name, value] of data) bytes += name.length + value.length;
  return bytes;
}

/** What nobody needs any more is not left lying in memory. Copies that a protocol or JSON has made are out of our hands. */
export function wipe(data: SecretData): void {
  for (const value of data.values()) value.fill(0);
}

export function sameData(a: SecretData, b: SecretData): boolean {
  return a.size === b.size && [...a].every(([name, value]) => b.get(name)?.equals(value) === true);
}
