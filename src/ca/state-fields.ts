// Fields of the CA's own state files, read as if a stranger had written them. Each throws a plain Error that names the field.

export type Fields = Readonly<Record<string, unknown>>;

const MAX_TEXT = 4096;

export function textField(fields: Fields, name: string, pattern?: RegExp): string {
  const value = fields[name];
  if (typeof value !== 'string' || value.length > MAX_TEXT || (pattern !== undefined && !pattern.test(value)))
    throw new Error(`${JSON.stringify(name)} is not what it should be`);
  return value;
}

/** A whole number from 0. */
export function wholeField(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) throw new Error(`${JSON.stringify(name)} is no whole number`);
  return value;
}

export function listField<T>(fields: Fields, name: string, parse: (entry: Fields) => T): T[] {
  const value = fields[name];
  if (!Array.isArray(value)) throw new Error(`${JSON.stringify(name)} is no list`);
  return value.map((entry: unknown, index) => {
    try {
      return parse(objectOf(entry));
    } catch (cause) {
      throw new Error(`${JSON.stringify(name)}, entry ${index + 1}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    }
  });
}

/** Refuses members that this version does not know: they may mean that something is revoked. */
export function onlyFields(fields: Fields, names: readonly string[]): void {
  const stranger = Object.keys(fields).find((name) => !names.includes(name));
  if (stranger !== undefined) throw new Error(`${JSON.stringify(stranger)} is not known to this version`);
}

function objectOf(value: unknown): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new Error('not an object');
  return { ...value };
}
