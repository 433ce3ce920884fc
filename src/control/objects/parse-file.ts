// One file of YAML or JSON to objects. Everything wrong is said with file, line and what would be accepted.

import { type Document, isPair, isScalar, LineCounter, parseAllDocuments, visit } from 'yaml';
import { messageOf } from '../../errors.ts';
import { describeIssue, offsetOf } from '../../yaml/schema-problems.ts';
import { isSecretKind } from '../secrets/secret-kinds.ts';
import { isObjectKind, type ObjectEntry, objectKinds, type Place } from './object-kinds.ts';

/** A file's name as the operator knows it, and its text. */
export interface ObjectFile {
  readonly name: string;
  readonly text: string;
}

const MAX_ALIASES = 100;

/** Whatever is wrong with one file is added to `problems`, each with its line. */
export function parseFile(file: ObjectFile, problems: string[]): ObjectEntry[] {
  const lines = new LineCounter();
  const documents = parseAllDocuments(file.text, {
    lineCounter: lines,
    prettyErrors: false,
    // Looked for below: yaml compares each key with every other, which takes seconds for a map of some thousands.
    uniqueKeys: false,
    version: '1.2',
    stringKeys: true,
  });
  const place = (offset: number): Place => `${file.name}:${lines.linePos(offset).line}`;
  // A file without one object is one that is being written, or was emptied by accident: taking it at its word could switch STRICT off.
  if (!Array.isArray(documents) || documents.every(isEmpty)) {
    problems.push(`${file.name}:1: no object in it; remove the file to remove its objects`);
    return [];
  }
  // JSON that is cut short does not parse; YAML does, and may mean something else.
  if (!file.name.endsWith('.json') && !file.text.endsWith('\n')) {
    problems.push(`${place(file.text.length)}: the last line does not end: half written? End the file with a newline`);
    return [];
  }
  return documents.flatMap((document) => {
    const [error] = document.errors;
    if (error !== undefined) {
      problems.push(`${place(error.pos[0])}: not YAML: ${error.message.split('\n')[0]}`);
      return [];
    }
    // What YAML can only guess at, such as an unknown tag, which would be dropped.
    const [warning] = document.warnings;
    if (warning !== undefined) {
      problems.push(`${place(warning.pos[0])}: not plain YAML: ${warning.message.split('\n')[0]}`);
      return [];
    }
    return isEmpty(document) ? [] : parseDocument(document, { place, problems });
  });
}

/** Nothing between two separators, as templates leave it. */
function isEmpty(document: Document.Parsed): boolean {
  return document.contents === null || (isScalar(document.contents) && document.contents.value === null);
}

/** What JavaScript objects cannot hold faithfully, or YAML cannot resolve: refused before anything is made of it. */
function unreadable(document: Document.Parsed): { offset: number; problem: string } | undefined {
  let found: { offset: number; problem: string } | undefined;
  visit(document, {
    Alias: (_, alias) => {
      if (alias.resolve(document) !== undefined) return undefined;
      found = { offset: alias.range?.[0] ?? 0, problem: `*${alias.source} refers to an anchor that is not set before it` };
      return visit.BREAK;
    },
    Map: (_, map) => {
      const seen = new Set<unknown>();
      for (const { key } of map.items) {
        if (!isScalar(key)) continue;
        if (seen.has(key.value)) {
          found = { offset: key.range?.[0] ?? 0, problem: `not YAML: Map keys must be unique: ${JSON.stringify(key.value)} stands twice` };
          return visit.BREAK;
        }
        seen.add(key.value);
      }
      return undefined;
    },
    Pair: (_, pair, ancestors) => {
      if (!isScalar(pair.key) || pair.key.value !== '__proto__') return undefined;
      const path = ancestors.filter(isPair).map((ancestor) => `${String(ancestor.key)}.`);
      found = { offset: pair.key.range?.[0] ?? 0, problem: `unknown field ${path.join('')}__proto__` };
      return visit.BREAK;
    },
  });
  return found;
}

function parseDocument(document: Document.Parsed, at: { place: (offset: number) => Place; problems: string[] }): ObjectEntry[] {
  const start = at.place(document.contents?.range?.[0] ?? 0);
  const bad = unreadable(document);
  if (bad !== undefined) {
    at.problems.push(`${at.place(bad.offset)}: ${bad.problem}`);
    return [];
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    at.problems.push(`${start}: ${messageOf(error)}`);
    return [];
  }
  const kindName = typeof value === 'object' && value !== null && 'kind' in value ? value.kind : undefined;
  if (!isObjectKind(kindName)) {
    if (isSecretKind(kindName)) {
      at.problems.push(`${start}: a ${kindName} stands in a folder of its own, closed to others: --secrets-dir`);
      return [];
    }
    const found = kindName === undefined ? 'kind is missing' : `kind ${JSON.stringify(kindName)} is not supported`;
    at.problems.push(`${at.place(offsetOf(document, ['kind']))}: ${found}; accepted: ${Object.keys(objectKinds).join(', ')}`);
    return [];
  }
  const kind = objectKinds[kindName];
  const reading = kind.read(value, start);
  if ('entry' in reading) return [reading.entry];
  for (const issue of reading.issues) at.problems.push(...describeIssue(issue, { document, schema: kind.schema, place: at.place }));
  return [];
}
