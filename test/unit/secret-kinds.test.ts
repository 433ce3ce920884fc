// WorkloadSecret and SecretPolicy: what is accepted, what is refused without a word of the contents, and who is entitled by what.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseSecretFile } from '../../src/control/secrets/parse-secret-file.ts';
import { readSecretEntry, type SecretKind } from '../../src/control/secrets/secret-kinds.ts';
import { parseSecretResourceName } from '../../src/policy/secret-name.ts';
import { mayReceive } from '../../src/policy/secret-policy.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';

const PLAIN = 'open-sesame-1234';
const BASE64 = Buffer.from(PLAIN).toString('base64');
const metadata = { name: 'db', namespace: 'foo' };
const api = { apiVersion: 'handfast.io/v1alpha1' };
const secret = (spec: unknown, more: object = {}) => ({ ...api, kind: 'WorkloadSecret', metadata, spec, ...more });
const policy = (spec: unknown) => ({ ...api, kind: 'SecretPolicy', metadata, spec });
const version = (more: object = {}) => ({ version: '7', data: { key: BASE64 }, ...more });
const read = (kind: SecretKind, value: unknown) => readSecretEntry(kind, value, 'cluster.local');
const problems = (kind: SecretKind, value: unknown) => {
  const outcome = read(kind, value);
  return 'problems' in outcome ? outcome.problems : [];
};

describe('a WorkloadSecret', () => {
  it('has-versions-of-bytes-and-of-text', () => {
    const outcome = read(
      'WorkloadSecret',
      secret({ versions: [version(), { version: '8.a-b_c', stringData: { key: PLAIN, 'other.key': 'ü' } }], current: '7' }),
    );
    assert.ok('entry' in outcome && outcome.entry.kind === 'WorkloadSecret');
    const { key, current, versions } = outcome.entry.object;
    assert.deepEqual([key, current, [...versions.keys()]], ['foo/db', '7', ['7', '8.a-b_c']]);
    assert.equal(versions.get('7')?.get('key')?.toString(), PLAIN);
    assert.equal(versions.get('8.a-b_c')?.get('other.key')?.toString(), 'ü');
  });

  const wrong: Readonly<Record<string, unknown>> = {
    'no version': secret({ versions: [], current: '7' }),
    'a current that is none of them': secret({ versions: [version()], current: '8' }),
    'a version twice': secret({ versions: [version(), version()], current: '7' }),
    'a version without a value': secret({ versions: [{ version: '7' }], current: '7' }),
    'a value in both maps': secret({ versions: [version({ stringData: { key: PLAIN } })], current: '7' }),
    'no base64': secret({ versions: [version({ data: { key: PLAIN } })], current: '7' }),
    'base64 with a hidden end': secret({ versions: [version({ data: { key: `${BASE64}AA` } })], current: '7' }),
    'a version as a number': secret({ versions: [version({ version: 7 })], current: '7' }),
    'a version with a slash': secret({ versions: [version({ version: PLAIN.replace('-', '/') })], current: '7' }),
    'a name with a slash': secret({ versions: [version({ data: { [`a/${PLAIN}`]: BASE64 } })], current: '7' }),
    'a name that is dots': secret({ versions: [version({ data: { '..': BASE64 } })], current: '7' }),
    'a value as a list': secret({ versions: [version({ data: { key: [PLAIN] } })], current: '7' }),
    'a value as a number': secret({ versions: [version({ data: { key: 1234 } })], current: '7' }),
    'an unknown field whose name is the secret': secret({ versions: [version({ [PLAIN]: 1 })], current: '7' }),
    'a secret in the place of a version': secret({ versions: [PLAIN], current: '7' }),
    'a secret in the place of everything': secret(PLAIN),
    'an unknown field beside the spec': secret({ versions: [version()], current: '7' }, { [PLAIN]: PLAIN }),
    'too long a value': secret({ versions: [version({ stringData: { long: `${PLAIN}${'x'.repeat(65_536)}` } })], current: '7' }),
    'too many bytes together': secret({
      versions: [1, 2, 3, 4, 5].map((each) => ({ version: String(each), stringData: { long: 'x'.repeat(60_000) } })),
      current: '1',
    }),
    'too many values': secret({
      versions: [{ version: '7', stringData: Object.fromEntries(Array.from({ length: 33 }, (_, index) => [`k${index}`, PLAIN])) }],
      current: '7',
    }),
    'too many versions': secret({
      versions: Array.from({ length: 17 }, (_, index) => version({ version: String(index) })),
      current: '7',
    }),
  };
  for (const [what, value] of Object.entries(wrong))
    it(`refused-without-a-word-of-it: ${what}`, () => {
      const found = problems('WorkloadSecret', value);
      assert.ok(found.length > 0);
      for (const problem of found) for (const content of [PLAIN, BASE64, '1234']) assert.ok(!problem.includes(content), problem);
    });
});

describe('a file', () => {
  const parse = (text: string) => {
    const found: string[] = [];
    const entries = parseSecretFile({ name: 'db.yaml', text }, { trustDomain: 'cluster.local', problems: found });
    return { entries, found };
  };

  it('has-several-objects', () => {
    const { entries, found } = parse(
      `${JSON.stringify(secret({ versions: [version()], current: '7' }))}\n---\n${JSON.stringify(policy({ secrets: ['db'], recipients: { serviceAccounts: ['foo/a'] } }))}\n`,
    );
    assert.deepEqual([entries.map(({ kind }) => kind), found], [['WorkloadSecret', 'SecretPolicy'], []]);
  });

  const torn: Readonly<Record<string, string>> = {
    'not YAML': `apiVersion: handfast.io/v1alpha1\nkind: "WorkloadSecret\nspec: {${PLAIN}\n`,
    'a scalar where none may be': `kind: WorkloadSecret\n${PLAIN}\n`,
    'a tag': `kind: WorkloadSecret\nspec: !${PLAIN} {}\n`,
    'an alias': `kind: WorkloadSecret\nspec: *${PLAIN}\n`,
    'a resolvable alias': `kind: WorkloadSecret\nmetadata: &a {name: ${PLAIN}}\nspec: *a\n`,
    'a key twice': `kind: WorkloadSecret\n${PLAIN}: 1\n${PLAIN}: 2\n`,
    'another kind': `kind: ${PLAIN}\n`,
    'a kind that is no text': `kind: {a: ${PLAIN}}\n`,
    'no object': '# nothing\n',
    'half a line': `kind: WorkloadSecret\nspec: ${PLAIN}`,
  };
  for (const [what, text] of Object.entries(torn))
    it(`refused-by-its-line: ${what}`, () => {
      const { entries, found } = parse(text);
      assert.deepEqual(entries, []);
      assert.ok(found.length > 0);
      for (const problem of found) {
        assert.match(problem, /^db\.yaml:\d+: /);
        assert.ok(!problem.includes(PLAIN), problem);
      }
    });
});

describe('who may receive', () => {
  const granted = (recipients: object, key: string, uri: string) => {
    const outcome = read('SecretPolicy', policy({ secrets: ['db', 'more'], recipients }));
    assert.ok('entry' in outcome && outcome.entry.kind === 'SecretPolicy');
    return mayReceive([outcome.entry.object], { key, id: parseSpiffeId(uri) });
  };
  const A = 'spiffe://cluster.local/ns/foo/sa/a';
  const account = { serviceAccounts: ['foo/a'] };
  const table: readonly [what: string, recipients: object, key: string, id: string, may: boolean][] = [
    ['the account', account, 'foo/db', A, true],
    ['the account, the other secret', account, 'foo/more', A, true],
    ['another secret', account, 'foo/third', A, false],
    ['a secret whose name begins so', account, 'foo/db2', A, false],
    ['the same name in another namespace', account, 'bar/db', A, false],
    ['another account', account, 'foo/db', 'spiffe://cluster.local/ns/foo/sa/b', false],
    ['an account whose name begins so', account, 'foo/db', `${A}b`, false],
    ['the account of another namespace', account, 'foo/db', 'spiffe://cluster.local/ns/bar/sa/a', false],
    ['the account of another trust domain', account, 'foo/db', 'spiffe://evil.example/ns/foo/sa/a', false],
    ['a principal', { principals: ['cluster.local/ns/bar/sa/web'] }, 'foo/db', 'spiffe://cluster.local/ns/bar/sa/web', true],
    ['a whole namespace', { principals: ['cluster.local/ns/foo/sa/*'] }, 'foo/db', A, true],
    [
      'a namespace that begins so',
      { principals: ['cluster.local/ns/foo/sa/*'] },
      'foo/db',
      'spiffe://cluster.local/ns/foo-evil/sa/a',
      false,
    ],
    ['a prefix of accounts', { principals: ['cluster.local/ns/foo/sa/web-*'] }, 'foo/db', 'spiffe://cluster.local/ns/foo/sa/web-1', true],
    ['not of that prefix', { principals: ['cluster.local/ns/foo/sa/web-*'] }, 'foo/db', 'spiffe://cluster.local/ns/foo/sa/we', false],
    [
      'a node, which is no workload',
      { principals: ['cluster.local/ns/foo/sa/*'] },
      'foo/db',
      'spiffe://cluster.local/handfast/agent/n',
      false,
    ],
    ['a longer path', { principals: ['cluster.local/ns/foo/sa/*'] }, 'foo/db', `${A}/more`, false],
  ];
  for (const [what, recipients, key, id, may] of table)
    it(`${may ? 'allowed' : 'denied'}: ${what}`, () => assert.equal(granted(recipients, key, id), may));

  it('denied: without a policy', () => assert.equal(mayReceive([], { key: 'foo/db', id: parseSpiffeId(A) }), false));

  const wrong: Readonly<Record<string, unknown>> = {
    everybody: { principals: ['*'] },
    'everybody of a trust domain': { principals: ['cluster.local/*'] },
    'an asterisk inside': { principals: ['cluster.local/ns/*/sa/a'] },
    'an asterisk in the namespace': { principals: ['cluster.local/ns/foo*'] },
    'a prefix of an account that is no principal': { serviceAccounts: ['foo/*'] },
    'an account without its namespace': { serviceAccounts: ['a'] },
    'a SPIFFE ID with its scheme': { principals: ['spiffe://cluster.local/ns/foo/sa/a'] },
    nobody: {},
    'something else': { namespaces: ['foo'] },
    'a principal of another trust domain': { principals: ['other/ns/bar/sa/web'] },
  };
  for (const [what, recipients] of Object.entries(wrong))
    it(`refused: ${what}`, () => assert.ok(problems('SecretPolicy', policy({ secrets: ['db'], recipients })).length > 0));
  it('refused: a pattern of secrets', () =>
    assert.ok(problems('SecretPolicy', policy({ secrets: ['*'], recipients: { serviceAccounts: ['foo/a'] } })).length > 0));
});

describe('names of SDS', () => {
  it('are-secrets-and-their-values', () => {
    assert.deepEqual(parseSecretResourceName('secret:foo/db'), { key: 'foo/db', member: undefined });
    assert.deepEqual(parseSecretResourceName('secret:foo/db.b/key.pem'), { key: 'foo/db.b', member: 'key.pem' });
  });
  for (const name of [
    'secret:',
    'secret:foo',
    'secret:foo/',
    'secret:/db',
    'secret:../db',
    'secret:foo/..',
    'secret:foo/.',
    'secret:foo/../bar/db',
    'secret:foo/db/..',
    'secret:foo/db/key/more',
    'secret:foo/db/',
    'secret:foo//db',
    'secret:FOO/db',
    'secret:foo/db\n',
    'secret:foo/db\u202e',
    'secret:foo/%64b',
    'secret:foo/db*',
    'secret:*/db',
    `secret:foo/${'d'.repeat(600)}`,
    'SECRET:foo/db',
    ' secret:foo/db',
  ])
    it(`are-nothing-else: ${JSON.stringify(name).slice(0, 40)}`, () => assert.equal(parseSecretResourceName(name), undefined));
});
