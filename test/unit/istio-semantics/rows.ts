// What the tables in this folder share: objects in few words, and a row as a test. The expectations come from the pages that the rows name, never from src.

import assert from 'node:assert/strict';
import { PolicyWorld } from '../../support/policy-world.ts';
import { type ObjectText, objectText, podText, scopeText } from '../../support/policy-yaml.ts';

type Of = Omit<ObjectText, 'name' | 'namespace'>;

const named = (id: string) => {
  const [namespace = '', name = ''] = id.split('/');
  return { namespace, name };
};
const object =
  (kind: string) =>
  (id: string, spec: string, of: Of = {}): string =>
    objectText(kind, spec, { ...of, ...named(id) });

export const peerAuthentication = object('PeerAuthentication');
export const authorizationPolicy = object('AuthorizationPolicy');
export const destinationRule = object('DestinationRule');
export const service = object('Service');
export const meshConfig = (spec: string): string => objectText('MeshConfig', spec, { name: 'mesh', namespace: 'istio-system' });

/** A ScopeConfig `id` around a wrapped object. */
export const scopeConfig = (
  id: string,
  [kind, name, spec, annotations]: readonly [kind: string, name: string, spec: string, annotations?: string | undefined],
  of: Of & { selector?: string; more?: string } = {},
): string => scopeText({ kind, name, spec, ...(annotations === undefined ? {} : { annotations }) }, { ...of, ...named(id) });

/** A pod with a sidecar, unless told otherwise. `labels`: YAML in flow style, without braces. Its service account has its name unless told otherwise. */
export function pod(id: string, ip: string, labels = '', of: { meshed?: boolean; serviceAccount?: string } = {}): string {
  const { name } = named(id);
  const { meshed = true, serviceAccount = name } = of;
  const all = [labels, meshed ? 'security.istio.io/tlsMode: istio' : ''].filter((part) => part !== '').join(', ');
  return podText(name, { ...named(id), ip, labels: `{${all}}`, serviceAccount });
}

export const worldOf = (documents: readonly string[], options?: ConstructorParameters<typeof PolicyWorld>[1]): PolicyWorld =>
  new PolicyWorld(documents.join('---\n'), options);

/** The n-th day of 2024, as Kubernetes writes it. */
export const day = (n: number): string => new Date(Date.UTC(2024, 0, n)).toISOString().replace('.000', '');

export interface Expectation {
  readonly title: string;
  /** The page that says so. */
  readonly source: string;
  readonly expected: string;
  /** We are known to answer something else, and why. Such a row speaks up once the answer is right. */
  readonly todo?: string | undefined;
}

/** The arguments of `test`, which is called where the table stands, so that a failure names its file. */
type Test = [name: string, options: { todo?: string }, check: () => void];

export function row({ title, source, expected, todo }: Expectation, ask: () => string): Test {
  assert.match(source, /^(https:\/\/|handfast )/);
  const check = () => {
    if (todo === undefined) assert.equal(answer(ask), expected);
    else assert.notEqual(answer(ask), expected, 'the answer is right now: take the todo away');
  };
  return [`${title} [${source}]`, todo === undefined ? {} : { todo }, check];
}

function answer(ask: () => string): string {
  try {
    return ask();
  } catch (error) {
    return `refused: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** That a mesh is refused, by file and line and with each of `words`. */
export function refused(title: string, source: string, documents: readonly string[] | string, ...words: readonly string[]): Test {
  assert.match(source, /^(https:\/\/|handfast )/);
  const check = () =>
    assert.throws(
      () => new PolicyWorld(typeof documents === 'string' ? documents : documents.join('---\n')),
      (error: Error & { code?: string }) => {
        assert.equal(error.code, 'OBJECT_INVALID', error.message);
        for (const word of ['world.yaml:', ...words]) assert.ok(error.message.includes(word), `"${word}" is not in: ${error.message}`);
        return true;
      },
    );
  return [`${title} is refused [${source}]`, {}, check];
}
