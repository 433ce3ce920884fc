// From an object to another one by JSON Patch (RFC 6902), as far as the injector changes pods: members of metadata and spec are added or replaced whole.

import { isDeepStrictEqual } from 'node:util';
import { isJsonObject } from '../spiffe/strict-json.ts';

/** `add` replaces a member that is there already (RFC 6902, 4.1). */
export interface PatchOperation {
  readonly op: 'add';
  readonly path: string;
  readonly value: unknown;
}

/** Members are compared two levels deep: /metadata/labels, /spec/containers. Nothing is ever removed. */
export function jsonPatch(of: { before: object; after: object }): PatchOperation[] {
  return differences(of, { path: '', depth: 2 });
}

function differences(
  { before, after }: { before: object; after: object },
  { path, depth }: { path: string; depth: number },
): PatchOperation[] {
  const old = new Map<string, unknown>(Object.entries(before));
  return Object.entries(after).flatMap(([name, value]: [string, unknown]) => {
    const was = old.get(name);
    if (isDeepStrictEqual(was, value)) return [];
    const here = `${path}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;
    if (depth > 1 && isJsonObject(was) && isJsonObject(value))
      return differences({ before: was, after: value }, { path: here, depth: depth - 1 });
    return [{ op: 'add' as const, path: here, value }];
  });
}

/** The members that a path names, from the outside in. */
export function pointerParts(path: string): string[] {
  return path
    .split('/')
    .slice(1)
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}
