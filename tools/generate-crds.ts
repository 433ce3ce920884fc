// The CustomResourceDefinitions of the kinds that control understands, from the very schemas that it reads them with: deploy/crds. With --check: whether they are up to date.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { stringify } from 'yaml';
import { z } from 'zod';
import { type ObjectKind, objectKinds } from '../src/control/objects/object-kinds.ts';
import { isSecretKind, type SecretKind, secretSchemas } from '../src/control/secrets/secret-kinds.ts';
import { type Rule, rulesOf } from './crd-rules.ts';

interface Definition {
  readonly kind: ObjectKind | SecretKind;
  readonly group: string;
  readonly plural: string;
  readonly shortNames: readonly string[];
  readonly scope: 'Namespaced' | 'Cluster';
  /** The first one is stored. */
  readonly versions: readonly string[];
  readonly columns: readonly { readonly name: string; readonly type: string; readonly jsonPath: string }[];
}

const AGE = { name: 'Age', type: 'date', jsonPath: '.metadata.creationTimestamp' };
const ACCEPTED = { name: 'Accepted', type: 'string', jsonPath: '.status.conditions[?(@.type=="Accepted")].status' };
const PROGRAMMED = { name: 'Programmed', type: 'string', jsonPath: '.status.conditions[?(@.type=="Programmed")].message' };
const column = (name: string, jsonPath: string) => ({ name, type: 'string', jsonPath });

const definitions: readonly Definition[] = [
  {
    kind: 'PeerAuthentication',
    group: 'security.istio.io',
    plural: 'peerauthentications',
    shortNames: ['pa'],
    scope: 'Namespaced',
    versions: ['v1', 'v1beta1'],
    columns: [column('Mode', '.spec.mtls.mode'), ACCEPTED, PROGRAMMED, AGE],
  },
  {
    kind: 'AuthorizationPolicy',
    group: 'security.istio.io',
    plural: 'authorizationpolicies',
    shortNames: ['ap'],
    scope: 'Namespaced',
    versions: ['v1', 'v1beta1'],
    columns: [column('Action', '.spec.action'), ACCEPTED, PROGRAMMED, AGE],
  },
  {
    kind: 'RequestAuthentication',
    group: 'security.istio.io',
    plural: 'requestauthentications',
    shortNames: ['ra'],
    scope: 'Namespaced',
    versions: ['v1', 'v1beta1'],
    columns: [column('Issuers', '.spec.jwtRules[*].issuer'), ACCEPTED, PROGRAMMED, AGE],
  },
  {
    kind: 'DestinationRule',
    group: 'networking.istio.io',
    plural: 'destinationrules',
    shortNames: ['dr'],
    scope: 'Namespaced',
    versions: ['v1', 'v1beta1', 'v1alpha3'],
    columns: [column('Host', '.spec.host'), ACCEPTED, PROGRAMMED, AGE],
  },
  {
    kind: 'ServiceEntry',
    group: 'networking.istio.io',
    plural: 'serviceentries',
    shortNames: ['se'],
    scope: 'Namespaced',
    versions: ['v1', 'v1beta1', 'v1alpha3'],
    columns: [column('Hosts', '.spec.hosts'), ACCEPTED, AGE],
  },
  {
    kind: 'ScopeConfig',
    group: 'handfast.io',
    plural: 'scopeconfigs',
    shortNames: [],
    scope: 'Namespaced',
    versions: ['v1alpha1'],
    columns: [column('Object', '.spec.object.kind'), ACCEPTED, PROGRAMMED, AGE],
  },
  {
    kind: 'MeshConfig',
    group: 'handfast.io',
    plural: 'meshconfigs',
    shortNames: [],
    scope: 'Cluster',
    versions: ['v1alpha1'],
    columns: [ACCEPTED, AGE],
  },
  {
    kind: 'WorkloadSecret',
    group: 'handfast.io',
    plural: 'workloadsecrets',
    shortNames: [],
    scope: 'Namespaced',
    versions: ['v1alpha1'],
    columns: [column('Current', '.spec.current'), ACCEPTED, AGE],
  },
  {
    kind: 'SecretPolicy',
    group: 'handfast.io',
    plural: 'secretpolicies',
    shortNames: [],
    scope: 'Namespaced',
    versions: ['v1alpha1'],
    columns: [column('Secrets', '.spec.secrets'), ACCEPTED, AGE],
  },
];

type Json = Readonly<Record<string, unknown>>;

/** Stays in the object, so that control sees and refuses it: what an API server drops would make a policy say less than its author did. */
const KEPT = { 'x-kubernetes-preserve-unknown-fields': true };
/** No value fits: refused by name where it is written. */
const UNSUPPORTED = { type: 'string', enum: ['not supported'] };

function isObject(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A structural schema (apiextensions.k8s.io/v1) of a JSON schema. */
function structural(schema: unknown): Json {
  if (!isObject(schema)) return KEPT;
  if (isObject(schema.not) && Object.keys(schema).length === 1) return UNSUPPORTED;
  const alternatives = [schema.anyOf, schema.oneOf].find(Array.isArray);
  if (alternatives !== undefined) {
    const types = alternatives.map((one: unknown) => (isObject(one) ? one.type : undefined));
    if (types.every((type) => type === 'integer' || type === 'string')) return { 'x-kubernetes-int-or-string': true };
    return types.every((type) => type === 'object') ? common(alternatives.filter(isObject)) : KEPT;
  }
  if ('const' in schema) return { type: 'string', enum: [schema.const] };
  const { type, description } = schema;
  const said = description === undefined ? {} : { description };
  if (type === 'array') return { ...said, type, items: structural(schema.items), ...bounds(schema, 'minItems', 'maxItems') };
  if (type === 'string') return { ...said, type, ...bounds(schema, 'enum', 'minLength', 'maxLength'), ...patternOf(schema) };
  if (type === 'integer' || type === 'number') return { ...said, type, ...bounds(schema, 'minimum', 'maximum'), ...above(schema) };
  if (type === 'boolean') return { ...said, type };
  if (type !== 'object') return KEPT;
  if (isObject(schema.additionalProperties) && schema.properties === undefined)
    return { ...said, type, additionalProperties: structural(schema.additionalProperties) };
  const properties = isObject(schema.properties) ? schema.properties : {};
  return {
    ...said,
    type,
    ...(Array.isArray(schema.required) && schema.required.length > 0 ? { required: schema.required } : {}),
    properties: Object.fromEntries(Object.entries(properties).map(([name, of]) => [name, structural(of)])),
    ...KEPT,
  };
}

/** What all alternatives have: of members that are texts to choose from, the choice of all of them. */
function common(alternatives: readonly Json[]): Json {
  const members = alternatives.map(({ properties }) => (isObject(properties) ? properties : {}));
  const names = Object.keys(members[0] ?? {}).filter((name) => members.every((of) => name in of));
  const required = names.filter((name) => alternatives.every((of) => Array.isArray(of.required) && of.required.includes(name)));
  const properties = names.map((name) => {
    const choices = members.map((of) => choicesOf(of[name]));
    const all = choices.flatMap((choice) => choice ?? []);
    if (choices.every((choice) => choice !== undefined)) return [name, { type: 'string', enum: [...new Set(all)] }];
    return [name, members.every((of) => isObject(of[name]) && of[name].type === 'object') ? { type: 'object', ...KEPT } : KEPT];
  });
  return { type: 'object', ...(required.length === 0 ? {} : { required }), properties: Object.fromEntries(properties), ...KEPT };
}

function choicesOf(schema: unknown): readonly unknown[] | undefined {
  if (!isObject(schema)) return undefined;
  return 'const' in schema ? [schema.const] : Array.isArray(schema.enum) ? schema.enum : undefined;
}

function bounds(schema: Json, ...names: readonly string[]): Json {
  const safe = (value: unknown) => typeof value !== 'number' || Number.isFinite(value);
  return Object.fromEntries(
    names
      .filter((name) => schema[name] !== undefined && safe(schema[name]) && Math.abs(Number(schema[name])) !== Number.MAX_SAFE_INTEGER)
      .map((name) => [name, schema[name]]),
  );
}

/** OpenAPI's way of saying it. */
function above({ exclusiveMinimum }: Json): Json {
  return typeof exclusiveMinimum === 'number' ? { minimum: exclusiveMinimum, exclusiveMinimum: true } : {};
}

/** Go's regular expressions have no look-around. */
function patternOf({ pattern }: Json): Json {
  return typeof pattern === 'string' && !pattern.includes('(?') ? { pattern } : {};
}

/** The schema with one more rule at its place: names of members, `[]` for what is in a list, `{}` for the values of a map. */
function withRule(schema: Json, { at, ...rule }: Rule): Json {
  const [next, ...rest] = at;
  if (next === undefined) {
    const { 'x-kubernetes-validations': known, ...others } = schema;
    const { rule: cel, message, ...marks } = rule;
    const rules = [...(Array.isArray(known) ? known : []), ...(cel === undefined ? [] : [{ rule: cel, message }])];
    return { ...others, ...marks, ...(rules.length === 0 ? {} : { 'x-kubernetes-validations': rules }) };
  }
  const places: Json = { '[]': schema.items, '{}': schema.additionalProperties, ...Object(schema.properties) };
  const inner = places[next];
  if (!isObject(inner)) throw new Error(`there is no ${next} for the rule ${rule.message ?? JSON.stringify(rule)}`);
  const changed = withRule(inner, { at: rest, ...rule });
  if (next === '[]') return { ...schema, items: changed };
  if (next === '{}') return { ...schema, additionalProperties: changed };
  return { ...schema, properties: { ...Object(schema.properties), [next]: changed } };
}

const CONDITIONS = {
  type: 'array',
  'x-kubernetes-list-type': 'map',
  'x-kubernetes-list-map-keys': ['type'],
  items: {
    type: 'object',
    required: ['type', 'status', 'reason', 'message', 'lastTransitionTime'],
    properties: {
      type: { type: 'string' },
      status: { type: 'string', enum: ['True', 'False', 'Unknown'] },
      reason: { type: 'string' },
      message: { type: 'string' },
      lastTransitionTime: { type: 'string', format: 'date-time' },
      observedGeneration: { type: 'integer', format: 'int64' },
    },
  },
};

function definitionOf({ kind, group, plural, shortNames, scope, versions, columns }: Definition): Json {
  const read = isSecretKind(kind) ? secretSchemas[kind] : objectKinds[kind].schema;
  const json: unknown = z.toJSONSchema(read, { io: 'input', unrepresentable: 'any', reused: 'inline' });
  const spec = isObject(json) && isObject(json.properties) ? json.properties.spec : undefined;
  const schema = {
    type: 'object',
    required: ['spec'],
    properties: {
      apiVersion: { type: 'string' },
      kind: { type: 'string' },
      metadata: { type: 'object' },
      spec: rulesOf(kind).reduce(withRule, structural(spec)),
      status: { type: 'object', properties: { conditions: CONDITIONS, observedGeneration: { type: 'integer', format: 'int64' } }, ...KEPT },
    },
  };
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${plural}.${group}`, labels: { 'app.kubernetes.io/part-of': 'handfast' } },
    spec: {
      group,
      scope,
      names: {
        kind,
        listKind: `${kind}List`,
        plural,
        singular: kind.toLowerCase(),
        categories: ['handfast'],
        ...(shortNames.length === 0 ? {} : { shortNames }),
      },
      versions: versions.map((name, index) => ({
        name,
        served: true,
        storage: index === 0,
        subresources: { status: {} },
        additionalPrinterColumns: columns,
        schema: { openAPIV3Schema: schema },
      })),
    },
  };
}

const HEAD = '# Made by tools/generate-crds.ts from the schemas that control reads these kinds with; do not edit.\n';
const checking = process.argv.includes('--check');
for (const definition of definitions) {
  const file = new URL(`../deploy/crds/${definition.plural}.yaml`, import.meta.url);
  const text = HEAD + stringify(definitionOf(definition), { aliasDuplicateObjects: false, lineWidth: 0 });
  const known = existsSync(file) ? readFileSync(file, 'utf8') : '';
  if (text === known) continue;
  if (!checking) writeFileSync(file, text);
  else {
    process.stderr.write(`deploy/crds/${definition.plural}.yaml is not what the schemas say: run node tools/generate-crds.ts\n`);
    process.exitCode = 1;
  }
}
