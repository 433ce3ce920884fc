// Tokens that a real API server has issued, and whom its TokenReview proves by them: every refusal has its allowed twin.

import assert from 'node:assert/strict';
import { createSign } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { NODE_AUDIENCE, NodeAccounts } from '../src/ca/node-accounts.ts';
import { TokenReviewProver } from '../src/ca/token-review-prover.ts';
import { PodNetwork } from '../test/support/namespaces.ts';
import { KubeCluster } from './support/kube-cluster.ts';
import { PlayedKubelet, type PodObject } from './support/played-kubelet.ts';

const AUDIENCE = 'handfast-ca';
let cluster: KubeCluster;
let network: PodNetwork;
let kubelet: PlayedKubelet;

before(async () => {
  cluster = await KubeCluster.start();
  network = await PodNetwork.create('tokens');
  kubelet = new PlayedKubelet({ cluster, network, node: 'node-1', hostPaths: {} });
  await cluster.apply(
    '{apiVersion: v1, kind: Namespace, metadata: {name: foo}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: handfast-system}}',
  );
  await cluster.apply('{apiVersion: v1, kind: Node, metadata: {name: node-1}}');
});

after(async () => {
  await network?.dispose();
  await cluster?.[Symbol.asyncDispose]();
});

async function pod(
  name: string,
  { namespace = 'foo', serviceAccount = name }: { namespace?: string; serviceAccount?: string } = {},
): Promise<PodObject> {
  await cluster.apply(`{apiVersion: v1, kind: ServiceAccount, metadata: {name: ${serviceAccount}, namespace: ${namespace}}}`);
  await cluster.apply(
    `{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: ${namespace}}, spec: {serviceAccountName: ${serviceAccount}, containers: [{name: a, image: "a:1"}]}}`,
  );
  await kubelet.bind(namespace, name);
  return kubelet.get(namespace, name);
}

const remove = (name: string) => cluster.kubectl(['delete', 'pod', name, '-n', 'foo', '--force', '--grace-period=0']);

function prover(audience = AUDIENCE): TokenReviewProver {
  return new TokenReviewProver({ server: cluster.server, caFile: cluster.caFile, tokenFile: cluster.tokenFile, audience });
}

test('a pod’s token proves its service account, its pod and its node', async () => {
  const object = await pod('sleep');
  const token = await kubelet.token(object, { audience: AUDIENCE });
  assert.deepEqual(await prover().prove(token), {
    namespace: 'foo',
    serviceAccount: 'sleep',
    podName: 'sleep',
    podUid: object.metadata.uid,
    nodeName: 'node-1',
  });
});

test('refused: a token for another audience, or for the API server itself', async () => {
  const object = await pod('audience');
  await prover().prove(await kubelet.token(object, { audience: AUDIENCE }));
  for (const token of [await kubelet.token(object, { audience: 'somebody-else' }), await kubelet.token(object, {})])
    await assert.rejects(prover().prove(token), { code: 'TOKEN_REFUSED', message: /audience|authenticat/ });
});

test('refused: a token of the account alone, which whoever has a right to make tokens can make', async () => {
  await pod('owner');
  const { stdout } = await cluster.kubectl(['create', 'token', 'owner', '-n', 'foo', `--audience=${AUDIENCE}`]);
  await assert.rejects(prover().prove(stdout.trim()), { code: 'TOKEN_REFUSED', message: /bound to no pod/ });
});

test('refused: the token of a pod that was deleted, and of one that another pod of its name has replaced', async () => {
  const token = await kubelet.token(await pod('gone'), { audience: AUDIENCE });
  await prover().prove(token);
  await remove('gone');
  const deadline = performance.now() + 30_000;
  // The API server remembers an answer for some seconds.
  for (;;) {
    const refused = await prover()
      .prove(token)
      .then(
        () => undefined,
        (error: unknown) => error,
      );
    if (refused !== undefined) {
      assert.match(String(refused), /not authenticated|invalid|expired|deleted|not found/i);
      break;
    }
    assert.ok(performance.now() < deadline, 'a deleted pod’s token is still good after 30 s');
    await delay(200);
  }
  const successor = await kubelet.token(await pod('gone'), { audience: AUDIENCE });
  await assert.rejects(prover().prove(token), { code: 'TOKEN_REFUSED' });
  assert.equal((await prover().prove(successor)).podName, 'gone');
});

test('refused: an expired token, and one whose expiry was changed without the API server’s key', async () => {
  const token = await kubelet.token(await pod('late'), { audience: AUDIENCE });
  const [head = '', body = ''] = token.split('.');
  const key = await readFile(join(cluster.dir, 'sa.key'));
  const signed = (claims: object) => {
    const text = `${head}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`;
    return `${text}.${createSign('sha256').update(text).sign(key).toString('base64url')}`;
  };
  const claims = JSON.parse(Buffer.from(body, 'base64url').toString()) as { iat: number; nbf: number; exp: number };
  // What the API server would have signed is good, so that the refusal below is about the time.
  assert.equal((await prover().prove(signed(claims))).serviceAccount, 'late');
  const past = { ...claims, iat: claims.iat - 7200, nbf: claims.nbf - 7200, exp: claims.exp - 7200 };
  await assert.rejects(prover().prove(signed(past)), { code: 'TOKEN_REFUSED', message: /expired/ });
  const [, , signature] = token.split('.');
  const longer = Buffer.from(JSON.stringify({ ...claims, exp: claims.exp + 7200 })).toString('base64url');
  await assert.rejects(prover().prove(`${head}.${longer}.${signature}`), { code: 'TOKEN_REFUSED' });
});

test('an agent’s token makes a node of it; a workload’s does not, nor an agent’s token that was made for workloads', async () => {
  const trustDomain = 'cluster.local';
  const account = (serviceAccount: string) => ({ namespace: 'handfast-system', serviceAccount });
  const nodes = new NodeAccounts({
    prover: prover(NODE_AUDIENCE),
    trustDomain,
    agent: account('handfast-agent'),
    control: account('handfast-control'),
  });
  const agent = await pod('agent-1', { namespace: 'handfast-system', serviceAccount: 'handfast-agent' });
  assert.equal(
    (await nodes.prove(await kubelet.token(agent, { audience: NODE_AUDIENCE }))).uri,
    'spiffe://cluster.local/handfast/agent/node-1',
  );
  const workload = await pod('pretender');
  await assert.rejects(nodes.prove(await kubelet.token(workload, { audience: NODE_AUDIENCE })), {
    code: 'TOKEN_REFUSED',
    message: /foo\/pretender is neither/,
  });
  await assert.rejects(nodes.prove(await kubelet.token(agent, { audience: AUDIENCE })), { code: 'TOKEN_REFUSED' });
});
