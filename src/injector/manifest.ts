// Manifests as one applies them: documents in, the same documents out with the sidecar in every pod. What is not injected comes out byte for byte.

import { Document, isAlias, isCollection, isMap, parseDocument, type ScalarTag, type Tags, visit } from 'yaml';
import { HandfastError, messageOf } from '../errors.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import type { Injection } from './inject-pod.ts';
import { jsonPatch, pointerParts } from './json-patch.ts';

export interface Manifest {
  readonly text: string;
  /** As the operator knows it. */
  readonly name: string;
}

export interface InjectedManifest {
  /** Meaningless where anything was refused. */
  readonly text: string;
  /** One line each, with document, kind and name. */
  readonly skipped: readonly string[];
  readonly refused: readonly string[];
  /** What has containers and was not looked at, as nobody knows where its pods come from. */
  readonly overlooked: readonly string[];
}

/** `namespace` is for objects that name none. */
export interface ManifestInjection {
  readonly namespace: string;
  readonly inject: (pod: unknown, namespace: string) => Injection;
}

/** Where the pod stands in each kind, by API group. Kinds of other groups are none of ours, whatever they are called. */
const TEMPLATES: Readonly<Record<string, readonly string[]>> = {
  '/Pod': [],
  '/PodTemplate': ['template'],
  '/ReplicationController': ['spec', 'template'],
  'apps/Deployment': ['spec', 'template'],
  'apps/StatefulSet': ['spec', 'template'],
  'apps/DaemonSet': ['spec', 'template'],
  'apps/ReplicaSet': ['spec', 'template'],
  'batch/Job': ['spec', 'template'],
  'batch/CronJob': ['spec', 'jobTemplate', 'spec', 'template'],
};
/** Of any group: PodList, DeploymentList. Their items need not name their kind. */
const LIST = 'List';

/**
 * kubectl reads YAML 1.1, in which 0644 is octal and `on` is true: so it is read and written here. Some of its tags kubectl does not know, and times are
 * text to it; written, they stand in quotes, so that nobody reads them otherwise.
 */
const UNKNOWN_TAGS = ['binary', 'omap', 'pairs', 'set'].map((name) => `tag:yaml.org,2002:${name}`);
const TIMESTAMP = 'tag:yaml.org,2002:timestamp';
const customTags = (tags: Tags): Tags =>
  tags.flatMap((tag) => {
    if (typeof tag === 'string' || UNKNOWN_TAGS.includes(tag.tag)) return [];
    const { test } = tag as ScalarTag;
    const isTime = tag.tag === TIMESTAMP || ('format' in tag && tag.format === 'TIME');
    return isTime && test !== undefined ? [{ tag: TIMESTAMP, default: true, test, resolve: (text: string) => text }] : [tag];
  });
const READING = { version: '1.1', customTags, prettyErrors: false, uniqueKeys: true, stringKeys: true } as const;
// The same object at two places must not become an alias.
const WRITING = { aliasDuplicateObjects: false } as const;

export function injectManifest({ text, name }: Manifest, injection: ManifestInjection): InjectedManifest {
  const skipped: string[] = [];
  const refused: string[] = [];
  const overlooked: string[] = [];
  const out = splitDocuments(text).map((piece, index) => {
    const where = `${name}: document ${index + 1}`;
    try {
      const { document, value } = readDocument(piece);
      const { targets, others } = lookInto(value, []);
      overlooked.push(...others.map((what) => `${where}: ${what}: has containers, and is of no kind that is injected`));
      const changes = targets.flatMap((target) => {
        const what = `${where}: ${target.kind} ${target.namespace ?? injection.namespace}/${target.name}`;
        const result = injection.inject(target.pod, target.namespace ?? injection.namespace);
        if (result.kind === 'injected') return changesOf(target, result.pod);
        (result.kind === 'skipped' ? skipped : refused).push(`${what}: ${result.reason}`);
        return [];
      });
      // What is guessed at, such as an unknown tag, would come out as something else; untouched it may stay.
      const [guess] = document.warnings;
      if (changes.length > 0 && guess !== undefined) throw unreadable(guess.message);
      return changes.length === 0 ? piece : changed({ document, value }, changes);
    } catch (error) {
      if (!(error instanceof HandfastError)) throw error;
      refused.push(`${where}: ${error.message}`);
      return piece;
    }
  });
  return { text: out.join(''), skipped, refused, overlooked };
}

/** Throws OBJECT_INVALID for what is no YAML, or grows without end. */
function readDocument(piece: string): { document: Document.Parsed; value: unknown } {
  if (isEmpty(piece)) return { document: parseDocument('', READING), value: null };
  const document = parseDocument(piece, READING);
  const [error] = document.errors;
  if (error !== undefined) throw unreadable(error.message);
  try {
    return { document, value: document.toJS() };
  } catch (cause) {
    // Aliases: of nothing, or of too much.
    throw unreadable(messageOf(cause));
  }
}

function unreadable(why: string): HandfastError {
  return new HandfastError('OBJECT_INVALID', `not YAML as kubectl reads it: ${why.split('\n')[0]}`);
}

/** Joined they are the text again. A line that begins with --- is a separator wherever it stands, in block scalars too (YAML 1.2.2, 9.1.2). */
function splitDocuments(text: string): string[] {
  return text.split(/^(?=---(?:[ \t\r]|$))/m).filter((piece) => piece !== '');
}

/** Comments, directives and markers alone. */
function isEmpty(piece: string): boolean {
  return piece
    .replace(/^\uFEFF/, '')
    .split('\n')
    .every((line) => /^(---)?\s*(#.*)?$|^\.\.\.\s*$|^%/.test(line));
}

type Path = readonly (string | number)[];

interface Target {
  readonly path: Path;
  readonly pod: unknown;
  readonly kind: string;
  readonly name: string;
  readonly namespace: string | undefined;
}

interface Found {
  readonly targets: readonly Target[];
  readonly others: readonly string[];
}

function lookInto(value: unknown, path: Path): Found {
  if (!isJsonObject(value)) return { targets: [], others: [] };
  const { apiVersion, kind, metadata, items } = value;
  const { name, generateName, namespace } = isJsonObject(metadata) ? metadata : {};
  const called = String(name ?? generateName ?? '(without a name)');
  const unknown: Found = { targets: [], others: hasContainers(value) ? [`${String(kind ?? '(without a kind)')} ${called}`] : [] };
  if (typeof apiVersion !== 'string' || typeof kind !== 'string') return unknown;
  const group = apiVersion.includes('/') ? apiVersion.slice(0, apiVersion.indexOf('/')) : '';
  const known = `${group}/${kind}`;
  if (kind.endsWith(LIST) && Array.isArray(items)) {
    const implied = kind === LIST ? {} : { apiVersion, kind: kind.slice(0, -LIST.length) };
    const found = items.map((item: unknown, index) =>
      lookInto(isJsonObject(item) ? { ...implied, ...item } : item, [...path, 'items', index]),
    );
    return { targets: found.flatMap(({ targets }) => targets), others: found.flatMap(({ others }) => others) };
  }
  const template = Object.hasOwn(TEMPLATES, known) ? TEMPLATES[known] : undefined;
  if (template === undefined) return unknown;
  const target = {
    path: [...path, ...template],
    pod: memberAt(value, template),
    kind,
    name: called,
    namespace: typeof namespace === 'string' && namespace !== '' ? namespace : undefined,
  };
  return { targets: [target], others: [] };
}

function memberAt(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((at, member) => (isJsonObject(at) ? at[member] : undefined), value);
}

/** Where pods stand in kinds that are made after Kubernetes' own, such as Argo's Rollout. */
const USUAL_PLACES = [[], ['template'], ['spec', 'template'], ['spec', 'jobTemplate', 'spec', 'template']];

function hasContainers(value: unknown): boolean {
  return USUAL_PLACES.some((place) => Array.isArray(memberAt(value, [...place, 'spec', 'containers'])));
}

interface Change {
  readonly path: Path;
  readonly value: unknown;
}

function changesOf({ path, pod }: Target, after: object): Change[] {
  const before = isJsonObject(pod) ? pod : {};
  return jsonPatch({ before, after }).map((operation) => ({ path: [...path, ...pointerParts(operation.path)], value: operation.value }));
}

/** Changed where it must be, so that comments elsewhere stay. What stands for something else (aliases), or in JSON's style, is written anew. */
function changed({ document, value }: { document: Document.Parsed; value: unknown }, changes: readonly Change[]): string {
  let aliases = false;
  visit(document, {
    Alias: () => {
      aliases = true;
      return visit.BREAK;
    },
    Pair: (_, { key }) => {
      if (!isAlias(key) && String(key) !== '<<') return undefined;
      aliases = true;
      return visit.BREAK;
    },
  });
  const anew = aliases || (isCollection(document.contents) && document.contents.flow === true) || !isMap(document.contents);
  const target = anew ? new Document(value, { ...READING, ...WRITING }) : document;
  if (anew) target.directives = document.directives;
  for (const change of changes) target.setIn(change.path, target.createNode(change.value, WRITING));
  return target.toString({ lineWidth: 0 });
}
