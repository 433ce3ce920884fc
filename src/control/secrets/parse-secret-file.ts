// One file of secrets and their policies. A parser's own messages quote the text that they are about, so only the line is kept of them.

import { LineCounter, parseAllDocuments } from 'yaml';
import { isSecretKind, readSecretEntry, type SecretEntry, secretKinds } from './secret-kinds.ts';

/** Whatever is wrong is added to `problems`, each with its line. */
export function parseSecretFile(
  { name, text }: { readonly name: string; readonly text: string },
  { trustDomain, problems }: { trustDomain: string; problems: string[] },
): SecretEntry[] {
  const lines = new LineCounter();
  const at = (offset: number) => `${name}:${lines.linePos(offset).line}`;
  const refuse = (offset: number, problem: string) => {
    problems.push(`${at(offset)}: ${problem}`);
    return [];
  };
  const documents = parseAllDocuments(text, { lineCounter: lines, prettyErrors: false, version: '1.2', stringKeys: true });
  if (!Array.isArray(documents)) return refuse(0, 'no object in it; remove the file to remove its objects');
  // A file that is being written.
  if (!name.endsWith('.json') && !text.endsWith('\n'))
    return refuse(text.length, 'the last line does not end: half written? End the file with a newline');
  const entries = documents.flatMap((document) => {
    const start = document.contents?.range?.[0] ?? 0;
    const [error] = [...document.errors, ...document.warnings];
    if (error !== undefined) return refuse(error.pos[0], `not plain YAML (${error.code})`);
    let value: unknown;
    try {
      value = document.toJS({ maxAliasCount: 0 });
    } catch {
      return refuse(start, 'aliases are not accepted');
    }
    if (value === null) return [];
    const kind = typeof value === 'object' && 'kind' in value ? value.kind : undefined;
    if (!isSecretKind(kind)) return refuse(start, `kind is not accepted; accepted here: ${secretKinds.join(', ')}`);
    const read = readSecretEntry(kind, value, trustDomain);
    if ('entry' in read) return [read.entry];
    for (const problem of read.problems) problems.push(`${at(start)}: ${problem}`);
    return [];
  });
  return documents.every(({ contents }) => contents === null)
    ? refuse(0, 'no object in it; remove the file to remove its objects')
    : entries;
}
