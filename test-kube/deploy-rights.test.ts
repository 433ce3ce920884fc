// Who may do what once the chart is installed, as a real API server judges it: the mesh's own accounts, teams, and what Pod Security says of its pods.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { at, find, SYSTEM } from './support/chart.ts';
import { InstalledChart, pod, until } from './support/installed-chart.ts';

const ACCOUNTS = { ca: 'handfast-ca', control: 'handfast-control', agent: 'handfast-agent', injector: 'handfast-injector' } as const;
const account = (name: string, namespace = SYSTEM) => `system:serviceaccount:${namespace}:${name}`;

let chart: InstalledChart;

before(async () => {
  chart = await InstalledChart.start(['crds.istio=true']);
  for (const name of ['foo', 'bar']) await chart.namespace(name);
  for (const level of ['restricted', 'baseline', 'privileged'])
    await chart.namespace(level, { 'pod-security.kubernetes.io/enforce': level });
});

after(async () => {
  await chart?.[Symbol.asyncDispose]();
});

/** Everything that an account may do in a namespace beyond what everybody may, a line each. */
async function rights(name: string, namespace: string): Promise<string[]> {
  const { stdout, code, stderr } = await chart.cluster.kubectl(['auth', 'can-i', '--list', '--no-headers', '-n', namespace], {
    as: account(name),
  });
  assert.equal(code, 0, stderr);
  return stdout
    .split('\n')
    .map((line) => line.trim().replace(/\s+/g, ' '))
    .filter((line) => line !== '' && !line.startsWith('[') && !line.startsWith('self'))
    .sort();
}

for (const [role, own, elsewhere] of [
  [
    'ca',
    ['configmaps [] [handfast-ca-root] [get update]', 'tokenreviews.authentication.k8s.io [] [] [create]'],
    ['tokenreviews.authentication.k8s.io [] [] [create]'],
  ],
  [
    'control',
    [
      'authorizationpolicies.security.istio.io [] [] [list watch]',
      'authorizationpolicies.security.istio.io/status [] [] [patch]',
      'controlstates.handfast.io [] [] [get list watch create update delete]',
      'destinationrules.networking.istio.io [] [] [list watch]',
      'destinationrules.networking.istio.io/status [] [] [patch]',
      'endpointslices.discovery.k8s.io [] [] [list watch]',
      'leases.coordination.k8s.io [] [handfast-control] [get update]',
      'meshconfigs.handfast.io [] [] [list watch]',
      'meshconfigs.handfast.io/status [] [] [patch]',
      'peerauthentications.security.istio.io [] [] [list watch]',
      'peerauthentications.security.istio.io/status [] [] [patch]',
      'pods [] [] [list watch]',
      'requestauthentications.security.istio.io [] [] [list watch]',
      'requestauthentications.security.istio.io/status [] [] [patch]',
      'scopeconfigs.handfast.io [] [] [list watch]',
      'scopeconfigs.handfast.io/status [] [] [patch]',
      'serviceentries.networking.istio.io [] [] [list watch]',
      'serviceentries.networking.istio.io/status [] [] [patch]',
      'services [] [] [list watch]',
    ],
    [
      'authorizationpolicies.security.istio.io [] [] [list watch]',
      'authorizationpolicies.security.istio.io/status [] [] [patch]',
      'destinationrules.networking.istio.io [] [] [list watch]',
      'destinationrules.networking.istio.io/status [] [] [patch]',
      'endpointslices.discovery.k8s.io [] [] [list watch]',
      'meshconfigs.handfast.io [] [] [list watch]',
      'meshconfigs.handfast.io/status [] [] [patch]',
      'peerauthentications.security.istio.io [] [] [list watch]',
      'peerauthentications.security.istio.io/status [] [] [patch]',
      'pods [] [] [list watch]',
      'requestauthentications.security.istio.io [] [] [list watch]',
      'requestauthentications.security.istio.io/status [] [] [patch]',
      'scopeconfigs.handfast.io [] [] [list watch]',
      'scopeconfigs.handfast.io/status [] [] [patch]',
      'serviceentries.networking.istio.io [] [] [list watch]',
      'serviceentries.networking.istio.io/status [] [] [patch]',
      'services [] [] [list watch]',
    ],
  ],
  ['agent', [], []],
  [
    'injector',
    [
      'mutatingwebhookconfigurations.admissionregistration.k8s.io [] [handfast-injector] [get update]',
      'namespaces [] [] [get list watch]',
      'pods [] [] [list watch]',
      'secrets [] [handfast-injector-tls] [get update]',
    ],
    [
      'mutatingwebhookconfigurations.admissionregistration.k8s.io [] [handfast-injector] [get update]',
      'namespaces [] [] [get list watch]',
      'pods [] [] [list watch]',
    ],
  ],
] as const)
  test(`the rights of ${role} are these and no others`, async () => {
    assert.deepEqual(await rights(ACCOUNTS[role], SYSTEM), own);
    assert.deepEqual(await rights(ACCOUNTS[role], 'foo'), elsewhere);
  });

for (const [may, who, ...what] of [
  ['yes', account(ACCOUNTS.ca), 'create', 'tokenreviews'],
  ['no', account(ACCOUNTS.ca), 'get', 'secrets', '-n', SYSTEM],
  ['yes', account(ACCOUNTS.ca), 'update', 'configmaps/handfast-ca-root', '-n', SYSTEM],
  ['no', account(ACCOUNTS.ca), 'update', 'configmaps/handfast-injector', '-n', SYSTEM],
  ['yes', account(ACCOUNTS.control), 'list', 'pods', '-A'],
  ['no', account(ACCOUNTS.control), 'update', 'pods', '-n', 'foo'],
  ['no', account(ACCOUNTS.control), 'update', 'peerauthentications.security.istio.io', '-n', 'foo'],
  ['no', account(ACCOUNTS.control), 'list', 'secrets', '-n', 'foo'],
  ['no', account(ACCOUNTS.control), 'update', 'configmaps/handfast-ca-root', '-n', SYSTEM],
  ['no', account(ACCOUNTS.control), 'update', 'leases/another', '-n', SYSTEM],
  ['no', account(ACCOUNTS.agent), 'get', 'controlstates.handfast.io', '-n', SYSTEM],
  ['no', account(ACCOUNTS.agent), 'get', 'secrets', '-n', SYSTEM],
  ['no', account(ACCOUNTS.agent), 'list', 'pods', '-n', 'foo'],
  ['yes', account(ACCOUNTS.injector), 'update', 'secrets/handfast-injector-tls', '-n', SYSTEM],
  ['no', account(ACCOUNTS.injector), 'get', 'secrets/another', '-n', SYSTEM],
  ['no', account(ACCOUNTS.injector), 'list', 'secrets', '-n', SYSTEM],
  ['yes', account(ACCOUNTS.injector), 'update', 'mutatingwebhookconfigurations/handfast-injector'],
  ['no', account(ACCOUNTS.injector), 'update', 'mutatingwebhookconfigurations/another'],
  // A sidecar has its workload's account.
  ['no', account('default', 'foo'), 'get', 'secrets', '-n', 'foo'],
  ['no', account('default', 'foo'), 'get', 'configmaps', '-n', SYSTEM],
] as const)
  test(`${may}: ${who.split(':').at(-1)} may ${what.join(' ')}`, async () => {
    const { stdout } = await chart.cluster.kubectl(['auth', 'can-i', ...what], { as: who });
    assert.equal(stdout.trim(), may);
  });

for (const [what, role] of [
  ['a team with the role handfast-policy-editor', 'handfast-policy-editor'],
  ['a team with the role edit, into which it is aggregated', 'edit'],
] as const)
  test(`${what} writes the policies of its own namespace, and no others`, async () => {
    const team = account('team', 'foo');
    await chart.cluster.apply(`
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: team-${role}, namespace: foo}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ${role}}
subjects: [{kind: ServiceAccount, name: team, namespace: foo}]
`);
    const strict = (namespace: string) =>
      `{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: own, namespace: ${namespace}}, spec: {mtls: {mode: STRICT}}}`;
    const entry =
      '{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: own, namespace: foo}, spec: {hosts: [a.example], addresses: [192.0.2.1], ports: [{number: 80, name: tcp, protocol: TCP}], resolution: STATIC, endpoints: [{address: 192.0.2.1}]}}';
    await until('the role', async () => (await chart.refusal(strict('foo'), team)) === '');
    assert.match(await chart.refusal(strict('bar'), team), /forbidden/);
    assert.match(await chart.refusal(strict(SYSTEM), team), /forbidden/);
    assert.match(
      await chart.refusal('{apiVersion: handfast.io/v1alpha1, kind: MeshConfig, metadata: {name: mesh}, spec: {}}', team),
      /forbidden/,
    );
    assert.equal(await chart.refusal(entry), '');
    assert.match(await chart.refusal(entry, team), /forbidden/, 'it would hold for everybody');
    const scope = (namespace: string) => `
{apiVersion: handfast.io/v1alpha1, kind: ScopeConfig, metadata: {name: own, namespace: ${namespace}}, spec: {object:
  {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: own}, spec: {mtls: {mode: STRICT}}}}}`;
    assert.equal(await chart.refusal(scope('foo'), team), '');
    assert.match(await chart.refusal(scope('bar'), team), /forbidden/);
    await chart.cluster.kubectl(['delete', 'rolebinding', `team-${role}`, '-n', 'foo']);
    await until('its end', async () => (await chart.refusal(strict('foo'), team)) !== '');
  });

function template(kind: string, name: string, namespace: string): object {
  const { metadata, spec } = Object(at(find(chart.objects, kind, name), 'spec', 'template'));
  // Its account is the system's; every namespace has this one.
  return pod({ ...spec, serviceAccountName: 'default' }, namespace, { labels: at(metadata, 'labels') });
}

for (const [kind, name] of [
  ['StatefulSet', 'handfast-ca'],
  ['StatefulSet', 'handfast-control'],
  ['Deployment', 'handfast-injector'],
] as const)
  test(`${name} meets Pod Security's level restricted`, async () =>
    assert.equal(await chart.refusal(template(kind, name, 'restricted')), ''));

test("the agent needs the level privileged, for its node's directory and processes, and for one capability", async () => {
  const words = await chart.refusal(template('DaemonSet', 'handfast-agent', 'baseline'));
  for (const reason of ['host namespaces (hostPID=true)', 'hostPath volumes (volume "sockets")', 'SYS_PTRACE'])
    assert.ok(words.includes(reason), words);
  // Where the socket policy lets it: it is the agent's namespace that it leaves out.
  assert.equal(await chart.refusal(template('DaemonSet', 'handfast-agent', SYSTEM)), '');
  const privileged = await chart.refusal(template('DaemonSet', 'handfast-agent', 'privileged'));
  assert.doesNotMatch(privileged, /PodSecurity/);
  assert.match(privileged, /agent-socket/);
});
