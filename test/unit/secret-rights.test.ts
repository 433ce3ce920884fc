// The secret channel on Kubernetes, as it is delivered: the definitions say what control checks, and nobody may read secrets unless that is asked for.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { secretBounds } from '../../src/policy/workload-secret.ts';

const read = (path: string) => readFileSync(new URL(`../../deploy/${path}`, import.meta.url), 'utf8');
const specOf = (plural: string) => parse(read(`crds/${plural}.yaml`)).spec.versions[0].schema.openAPIV3Schema.properties.spec;

describe('definitions', () => {
  it('versions-are-told-apart-by-name-and-keep-their-contents', () => {
    const { versions } = specOf('workloadsecrets').properties;
    assert.deepEqual([versions['x-kubernetes-list-type'], versions['x-kubernetes-list-map-keys']], ['map', ['version']]);
    const rules = versions.items['x-kubernetes-validations'].map(({ rule }: { rule: string }) => rule);
    for (const field of ['data', 'stringData'])
      assert.ok(
        rules.some((rule: string) => rule.includes(`self.${field} == oldSelf.${field}`)),
        field,
      );
  });

  it('have-the-bounds-that-the-cost-of-their-rules-is-counted-by', () => {
    const { versions, current } = specOf('workloadsecrets').properties;
    const { data, stringData, version } = versions.items.properties;
    assert.deepEqual(
      [
        versions.maxItems,
        data.maxProperties,
        stringData.maxProperties,
        version.maxLength,
        current.maxLength,
        stringData.additionalProperties.maxLength,
      ],
      [secretBounds.versions, secretBounds.values, secretBounds.values, 63, 63, secretBounds.valueBytes],
    );
  });

  it('are-of-namespaces-so-that-rights-are', () => {
    for (const plural of ['workloadsecrets', 'secretpolicies']) assert.equal(parse(read(`crds/${plural}.yaml`)).spec.scope, 'Namespaced');
  });
});

describe('rights', () => {
  interface Role {
    readonly kind: string;
    readonly metadata: { readonly name: string };
    readonly rules: readonly { readonly apiGroups: readonly string[]; readonly resources: readonly string[] }[];
  }
  const roles = parseAllDocuments(read('manifests/handfast.yaml'))
    .map((document): Role => document.toJS())
    .filter(({ kind }) => kind === 'ClusterRole' || kind === 'Role');
  const mayTouch = (resource: string) =>
    roles
      .filter(({ rules }) => rules.some(({ resources }) => resources.some((one) => one === resource || one === '*')))
      .map(({ metadata }) => metadata.name);

  it('nobody-has-any-to-secrets-by-the-defaults', () => {
    assert.ok(mayTouch('scopeconfigs').includes('handfast-control'));
    for (const resource of ['workloadsecrets', 'secretpolicies']) assert.deepEqual(mayTouch(resource), []);
  });

  it('where-it-is-asked-for-control-may-read-and-two-roles-part-writing-from-granting', () => {
    const [control, roles] = [read('chart/templates/control.yaml'), read('chart/templates/secret-roles.yaml')];
    assert.match(
      control,
      /if \.Values\.secrets\.enabled[\s\S]{0,200}resources: \[workloadsecrets, secretpolicies\]\s+verbs: \[list, watch\]/,
    );
    assert.match(roles, /"handfast-secret-editor" "resource" "workloadsecrets"/);
    assert.match(roles, /"handfast-secret-policy-editor" "resource" "secretpolicies"/);
    assert.ok(!roles.includes('aggregate'));
    assert.ok(!read('chart/templates/policy-roles.yaml').includes('secret'));
  });
});
