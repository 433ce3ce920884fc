// What a schema refuses, said with the line where it stands in the YAML and with what would be accepted there.

import { type Document, isMap, isNode } from 'yaml';
import type { z } from 'zod';

/** One line for each thing that is wrong: `file:line: what; what would be accepted`. */
export function describeIssue(
  issue: z.core.$ZodIssue,
  at: { document: Document.Parsed; schema: z.core.$ZodType; place: (offset: number) => string },
): string[] {
  const { document, schema, place } = at;
  const path = issue.path.map(String);
  const where = (parts: readonly string[]) => parts.join('.') || 'the object';
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map(
      (key) => `${place(offsetOf(document, [...path, key]))}: unknown field ${where([...path, key])}${acceptedFields(schema, path)}`,
    );
  }
  const line = place(offsetOf(document, path));
  if (issue.code === 'invalid_value') {
    const found = document.hasIn(path) ? `${JSON.stringify(document.getIn(path))} is not accepted` : 'is missing';
    return [`${line}: ${where(path)} ${found}; accepted: ${issue.values.map(String).join(', ')}`];
  }
  if (issue.code === 'invalid_type' && !document.hasIn(path)) return [`${line}: ${where(path)} is missing (${issue.expected})`];
  if (issue.code === 'invalid_key') return [`${line}: ${where(path)}: ${issue.issues.map((inner) => inner.message).join(', ')}`];
  return [`${line}: ${where(path)}: ${issue.message}`];
}

/** The names that would have been right where an unknown one stands. */
function acceptedFields(schema: z.core.$ZodType, path: readonly string[]): string {
  const fields = fieldsAt(schema, path);
  return fields === undefined ? '' : `; accepted: ${fields.join(', ')}`;
}

function fieldsAt(schema: z.core.$ZodType, path: readonly string[]): string[] | undefined {
  let current: z.core.$ZodType | undefined = schema;
  for (const part of [...path, undefined]) {
    current = unwrap(current);
    if (part === undefined || current === undefined) break;
    const { def } = current._zod;
    if ('shape' in def) current = (def.shape as Record<string, z.core.$ZodType>)[part];
    else if ('element' in def) current = def.element as z.core.$ZodType;
    else if ('valueType' in def) current = def.valueType as z.core.$ZodType;
    else current = undefined;
  }
  if (current === undefined || !('shape' in current._zod.def)) return undefined;
  const shape = Object.entries(current._zod.def.shape as Record<string, z.core.$ZodType>);
  // A field that is there to be refused by name is none to recommend.
  return shape.filter(([, field]) => unwrap(field)?._zod.def.type !== 'never').map(([name]) => name);
}

function unwrap(schema: z.core.$ZodType | undefined): z.core.$ZodType | undefined {
  let current = schema;
  while (current !== undefined && 'innerType' in current._zod.def) current = current._zod.def.innerType as z.core.$ZodType;
  return current;
}

/** Where a path stands in the text; where it is missing, where its nearest parent stands. */
export function offsetOf(document: Document.Parsed, path: readonly string[]): number {
  for (let length = path.length; length > 0; length--) {
    const parent = length === 1 ? document.contents : document.getIn(path.slice(0, length - 1), true);
    const key = path[length - 1];
    if (isMap(parent)) {
      const pair = parent.items.find((item) => isNode(item.key) && String(item.key) === key);
      if (pair !== undefined && isNode(pair.key) && pair.key.range) return pair.key.range[0];
    } else {
      const node = document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range) return node.range[0];
    }
  }
  return document.contents?.range?.[0] ?? 0;
}
