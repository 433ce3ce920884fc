// Nodes of a cluster: agent and control join by their service accounts' tokens, and an agent brings the tokens of its own node's pods alone.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, it } from 'node:test';
import { CaClient } from '../../src/ca/client.ts';
import type { ProvenWorkload, TokenProver } from '../../src/ca/local-token.ts';
import { NodeAccounts } from '../../src/ca/node-accounts.ts';
import { HandfastError } from '../../src/errors.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { createCsr } from '../../src/spiffe/csr.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { parseTrustBundle, trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { parseX509Svid } from '../../src/spiffe/x509-svid.ts';
import { tlsTarget } from '../../src/wire/grpc-target.ts';
import { ControlPlane, TRUST_DOMAIN } from '../support/control-plane.ts';
import { keyPair, keyPem } from '../support/pki.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

/** Tokens of the shape that an API server makes, and whom it says each proves. */
const TOKENS: Readonly<Record<string, ProvenWorkload>> = {
  'agent.on.node-1': { namespace: 'handfast-system', serviceAccount: 'handfast-agent', podName: 'agent-x', nodeName: 'node-1' },
  'agent.on.nowhere': { namespace: 'handfast-system', serviceAccount: 'handfast-agent' },
  'agent.named.control': { namespace: 'handfast-system', serviceAccount: 'handfast-agent', nodeName: 'control' },
  'control.pod.token': { namespace: 'handfast-system', serviceAccount: 'handfast-control', nodeName: 'node-2' },
  'other.namespaces.agent': { namespace: 'evil', serviceAccount: 'handfast-agent', nodeName: 'node-1' },
  'workload.on.node-1': { namespace: 'foo', serviceAccount: 'sleep', nodeName: 'node-1' },
  'workload.on.node-2': { namespace: 'foo', serviceAccount: 'sleep', nodeName: 'node-2' },
  'workload.of.nobody': { namespace: 'foo', serviceAccount: 'sleep' },
};
const prover: TokenProver = {
  prove: (token) => {
    const proven = TOKENS[token];
    return proven === undefined ? Promise.reject(new HandfastError('TOKEN_REFUSED', 'not one of ours')) : Promise.resolve(proven);
  },
};
const account = (serviceAccount: string) => ({ namespace: 'handfast-system', serviceAccount });

let records: RecordingLog;
let plane: ControlPlane;
let address: string;
let bundles: ReturnType<typeof trustBundles>;

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  const nodeAccounts = new NodeAccounts({
    prover,
    trustDomain: TRUST_DOMAIN,
    agent: account('handfast-agent'),
    control: account('handfast-control'),
  });
  const ca = await plane.startCa({ listen: { host: '127.0.0.1', port: 0 }, nodeAccounts, prover: () => prover });
  address = `127.0.0.1:${ca.port}`;
  const text = await readFile(join(plane.dir, 'ca/root.pem'), 'utf8');
  const bundlePem = text.slice(text.indexOf('-----BEGIN CERTIFICATE'));
  await writeFile(join(plane.dir, 'bundle.pem'), bundlePem);
  bundles = trustBundles(parseTrustBundle(bundlePem, TRUST_DOMAIN));
});

afterEach(async () => {
  await plane[Symbol.asyncDispose]();
});

async function asking<T>(identity: Identity | undefined, ask: (ca: CaClient) => Promise<T>): Promise<T> {
  const ca = new CaClient(
    tlsTarget({
      address,
      identity: () => identity,
      bundles: () => bundles,
      revocations: () => noRevocations,
      expected: { spiffeIds: [`spiffe://${TRUST_DOMAIN}/handfast/ca`] },
      now: Date.now,
    }),
  );
  try {
    return await ask(ca);
  } finally {
    ca.close();
  }
}

/** The identity that a token gets. */
async function joined(joinToken: string): Promise<Identity> {
  const keys = keyPair();
  const { chain } = await asking(undefined, (ca) => ca.join({ joinToken, csr: createCsr(keys) }));
  return Object.freeze({ svid: parseX509Svid({ chain, key: keyPem(keys.privateKey) }), bundles });
}

it('an agent becomes the node that its pod runs on, as often as it comes; control becomes control', async () => {
  for (let times = 0; times < 2; times++)
    assert.equal((await joined('agent.on.node-1')).svid.id.uri, `spiffe://${TRUST_DOMAIN}/handfast/agent/node-1`);
  assert.equal((await joined('control.pod.token')).svid.id.uri, `spiffe://${TRUST_DOMAIN}/handfast/control`);
});

for (const [token, says] of [
  ['other.namespaces.agent', /evil\/handfast-agent is neither/],
  ['workload.on.node-1', /foo\/sleep is neither/],
  ['agent.on.nowhere', /does not say on which node/],
  ['agent.named.control', /node name "control"/],
  ['not.ours.atall', /not one of ours/],
  ['no-account-at-all', /join token/],
] as const)
  it(`refused to join: ${token}`, async () => {
    await assert.rejects(joined(token));
    const refusal = records.records.find((record) => record.msg === 'node certificate refused');
    assert.match(String(refusal?.reason), says);
  });

it('an agent gets certificates for the pods of its own node, and for nobody else’s', async () => {
  const node = await joined('agent.on.node-1');
  const certificate = (token: string) => asking(node, (ca) => ca.sign({ token, csr: createCsr(keyPair()) }));
  await certificate('workload.on.node-1');
  // An API server that does not say where a pod runs.
  await certificate('workload.of.nobody');
  await assert.rejects(certificate('workload.on.node-2'), { code: 'TOKEN_REFUSED' });
  const refusal = records.records.find((record) => record.msg === 'certificate refused');
  assert.match(String(refusal?.reason), /a pod on node node-2, and node node-1 brought it/);
});

it('a whole agent joins by its token', async () => {
  const joinTokenFile = join(plane.dir, 'token');
  await writeFile(joinTokenFile, 'agent.on.node-1');
  await plane.startControl();
  await plane.startAgent({ ca: address, trustBundleFile: join(plane.dir, 'bundle.pem'), joinTokenFile });
  assert.ok(
    records.records.some((record) => record.msg === 'node joined' && record.spiffeId === `spiffe://${TRUST_DOMAIN}/handfast/agent/node-1`),
  );
});
