// From YAML text to objects. Everything wrong is collected, each with file, line and what would be accepted; one problem refuses the whole set.

import { type Document, isPair, isScalar, LineCounter, parseAllDocuments, visit } from 'yaml';
import type { z } from 'zod';
import { HandfastError, messageOf } from '../errors.ts';
import { defaultMeshConfig, meshConfigSchema } from '../policy/kinds/mesh-config.ts';
import { peerAuthenticationOf, peerAuthenticationSchema } from '../policy/kinds/peer-authentication.ts';
import { podSchema } from '../policy/kinds/pod.ts';
import { serviceSchema } from '../policy/kinds/service.ts';
import { describeIssue, offsetOf } from '../yaml/schema-problems.ts';
import type { MeshObjects } from './mesh-objects.ts';

/** A file's name as the operator knows it, and its text. */
export interface ObjectFile {
  readonly name: string;
  readonly text: string;
}

type Place = string;

const MAX_ALIASES = 100;
const schemas = {
  MeshConfig: meshConfigSchema,
  PeerAuthentication: peerAuthenticationSchema,
  Pod: podSchema,
  Service: serviceSchema,
} as const;
type Kind = keyof typeof schemas;
type Parsed = { [K in Kind]: { kind: K; place: Place; object: z.output<(typeof schemas)[K]> } }[Kind];

/** Throws OBJECT_INVALID whose message has one line a problem: `file:line: what is wrong; what is accepted`. */
export function parseObjects(files: readonly ObjectFile[]): MeshObjects {
  const problems: string[] = [];
  const parsed = files.flatMap((file) => parseFile(file, problems));
  const objects = collect(parsed, problems);
  if (problems.length > 0) throw new HandfastError('OBJECT_INVALID', problems.join('\n'));
  return objects;
}

function parseFile(file: ObjectFile, problems: string[]): Parsed[] {
  const lines = new LineCounter();
  const documents = parseAllDocuments(file.text, {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: true,
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
    Pair: (_, pair, ancestors) => {
      if (!isScalar(pair.key) || pair.key.value !== '__proto__') return undefined;
      const path = ancestors.filter(isPair).map((ancestor) => `${String(ancestor.key)}.`);
      found = { offset: pair.key.range?.[0] ?? 0, problem: `unknown field ${path.join('')}__proto__` };
      return visit.BREAK;
    },
  });
  return found;
}

function parseDocument(document: Document.Parsed, at: { place: (offset: number) => Place; problems: string[] }): Parsed[] {
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
  const kind = Object.keys(schemas).find((name): name is Kind => name === kindName);
  if (kind === undefined) {
    const found = kindName === undefined ? 'kind is missing' : `kind ${JSON.stringify(kindName)} is not supported`;
    at.problems.push(`${at.place(offsetOf(document, ['kind']))}: ${found}; accepted: ${Object.keys(schemas).join(', ')}`);
    return [];
  }
  const result = schemas[kind].safeParse(value);
  if (!result.success) {
    for (const issue of result.error.issues)
      at.problems.push(...describeIssue(issue, { document, schema: schemas[kind], place: at.place }));
    return [];
  }
  // The schema was chosen by the kind, so the pair belongs together; TypeScript cannot follow that through the table.
  return [{ kind, place: start, object: result.data } as Parsed];
}

function collect(parsed: readonly Parsed[], problems: string[]): MeshObjects {
  const unique = new Map<string, Place>();
  const claim = (what: string, place: Place) => {
    const first = unique.get(what);
    if (first === undefined) unique.set(what, place);
    else problems.push(`${place}: ${what} is already at ${first}; names and addresses must be unique`);
  };
  const configs = parsed.filter((entry) => entry.kind === 'MeshConfig');
  const config = configs[0]?.object.spec ?? defaultMeshConfig;
  for (const { place, kind, object } of parsed) {
    claim(kind === 'MeshConfig' ? 'MeshConfig' : `${kind} ${object.metadata.namespace}/${object.metadata.name}`, place);
    if (kind === 'Pod') for (const address of podAddresses(object)) claim(`address ${address}`, place);
    if (kind === 'Service') for (const address of serviceAddresses(object)) claim(`address ${address}`, place);
    if (
      kind === 'PeerAuthentication' &&
      object.metadata.namespace === config.rootNamespace &&
      peerAuthenticationOf(object).selector !== undefined
    ) {
      problems.push(
        `${place}: PeerAuthentication ${object.metadata.namespace}/${object.metadata.name} has a selector in the root namespace, where it would select nobody; put it into the workload's namespace`,
      );
    }
  }
  return Object.freeze({
    config,
    peerAuthentications: parsed.flatMap((entry) => (entry.kind === 'PeerAuthentication' ? [peerAuthenticationOf(entry.object)] : [])),
    pods: parsed.flatMap((entry) => (entry.kind === 'Pod' ? [entry.object] : [])),
    services: parsed.flatMap((entry) => (entry.kind === 'Service' ? [entry.object] : [])),
  });
}

/** All of a pod's addresses, each once. */
export function podAddresses({ status }: MeshObjects['pods'][number]): string[] {
  return [...new Set([...(status.podIP === undefined ? [] : [status.podIP]), ...status.podIPs.map(({ ip }) => ip)])];
}

/** All of a service's own addresses; none when it is headless. */
export function serviceAddresses({ spec }: MeshObjects['services'][number]): string[] {
  const own = [spec.clusterIP ?? '', ...spec.clusterIPs].filter((address) => address !== 'None' && address !== '');
  return [...new Set(own)];
}
