// Objects as an operator writes them, in few words: kind, name, and the rest as YAML in flow style.

import type { MeshObjects } from '../../src/control/objects/mesh-objects.ts';
import { parseObjects } from '../../src/control/objects/parse-objects.ts';

const apiVersions: Readonly<Record<string, string>> = {
  PeerAuthentication: 'security.istio.io/v1',
  AuthorizationPolicy: 'security.istio.io/v1',
  DestinationRule: 'networking.istio.io/v1',
  ServiceEntry: 'networking.istio.io/v1',
  ScopeConfig: 'handfast.io/v1alpha1',
  MeshConfig: 'handfast.io/v1alpha1',
};

export interface ObjectText {
  readonly name?: string;
  readonly namespace?: string;
  /** YAML in flow style. */
  readonly annotations?: string;
  readonly labels?: string;
  /** ISO 8601. */
  readonly createdAt?: string;
  readonly apiVersion?: string;
  readonly status?: string;
}

/** Line 1 is apiVersion, line 4 is spec. `spec`: YAML in flow style, or lines of their own. */
export function objectText(kind: string, spec: string, of: ObjectText = {}): string {
  const { name = 'a', namespace = 'foo', annotations = '{}', labels = '{}', createdAt, apiVersion = apiVersions[kind] ?? 'v1' } = of;
  const created = createdAt === undefined ? '' : `, creationTimestamp: "${createdAt}"`;
  const status = of.status === undefined ? '' : `status: ${of.status}\n`;
  return `apiVersion: ${apiVersion}\nkind: ${kind}\nmetadata: {name: ${name}, namespace: ${namespace}, annotations: ${annotations}, labels: ${labels}${created}}\nspec: ${spec}\n${status}`;
}

/** A ScopeConfig around `{kind, spec}` of a policy named `wrapped`, or as told. `more`: further fields of the spec, such as `priority: 1`. */
export function scopeText(
  wrapped: { kind: string; spec: string; name?: string; annotations?: string },
  of: ObjectText & { selector?: string; more?: string } = {},
): string {
  const annotations = wrapped.annotations === undefined ? '' : `, annotations: ${wrapped.annotations}`;
  const object = `{apiVersion: ${apiVersions[wrapped.kind] ?? 'v1'}, kind: ${wrapped.kind}, metadata: {name: ${wrapped.name ?? 'wrapped'}${annotations}}, spec: ${wrapped.spec}}`;
  const more = of.more === undefined ? '' : `, ${of.more}`;
  return objectText('ScopeConfig', `{selector: ${of.selector ?? '{}'}, object: ${object}${more}}`, of);
}

export function podText(name: string, of: ObjectText & { ip?: string; serviceAccount?: string } = {}): string {
  const { ip, serviceAccount = 'default' } = of;
  return objectText('Pod', `{serviceAccountName: ${serviceAccount}}`, {
    ...of,
    name,
    ...(ip === undefined ? {} : { status: `{podIP: "${ip}"}` }),
  });
}

export function parseTexts(...documents: readonly string[]): MeshObjects {
  return parseObjects([{ name: 'a.yaml', text: documents.join('---\n') }]);
}
