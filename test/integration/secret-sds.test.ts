// Secrets by SDS as any client may ask for them, of the agent: both protocols, what is no name, what is not its own, and what is taken back.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { type ClientDuplexStream, credentials, type ServiceError, status } from '@grpc/grpc-js';
import { Secret } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  DiscoveryRequest,
  DiscoveryResponse,
} from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { bearerMetadata } from '../../src/wire/grpc.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { SECRET_TYPE } from '../support/sds-server.ts';
import { SecretsDir } from '../support/secrets.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { eventually } from '../support/workers-pair.ts';

let records: RecordingLog;
let plane: ControlPlane;
let secrets: SecretsDir;
let cleanups: (() => unknown)[];

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
  secrets = await SecretsDir.create(join(plane.dir, 'secrets'));
  await db({ 7: { key: 'sesame', 'other.pem': 'more' } }, '7');
  await secrets.policy('a', { secrets: ['db', 'late'], recipients: { serviceAccounts: ['foo/a'] } });
  await plane.start({ control: { secrets: { from: { folder: secrets.path } } } });
  cleanups = [];
  tokens.clear();
});
afterEach(async () => {
  for (const clean of cleanups.reverse()) await clean();
  await plane[Symbol.asyncDispose]();
});

const db = (versions: Record<string, Record<string, string>>, current: string) => secrets.secret('db', { versions, current });

/** What a stream says, one by one; `refused` is how it ended. */
class Said<Request, Response> {
  readonly call: ClientDuplexStream<Request, Response>;
  readonly refused: Promise<ServiceError>;
  readonly all: Response[] = [];
  #taken = 0;

  constructor(call: ClientDuplexStream<Request, Response>) {
    this.call = call;
    call.on('data', (response: Response) => this.all.push(response));
    this.refused = new Promise((resolve) => call.on('error', (error) => resolve(error as ServiceError)));
    cleanups.push(() => call.cancel());
  }

  async next(): Promise<Response> {
    await eventually(() => this.all.length > this.#taken);
    const next = this.all[this.#taken++];
    assert.ok(next !== undefined);
    return next;
  }
}

/** The same for all streams of a test, as for those of one pod. */
const tokens = new Map<string, string>();
const tokenOf = async (name: string) => {
  const token = tokens.get(name) ?? (await plane.token(name));
  tokens.set(name, token);
  return token;
};

const sds = () => {
  const client = new SecretDiscoveryServiceClient(plane.address('agent'), credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  cleanups.push(() => client.close());
  return client;
};
async function stateOfTheWorld(name: string) {
  const said = new Said<DiscoveryRequest, DiscoveryResponse>(sds().streamSecrets(bearerMetadata(await plane.token(name))));
  const send = (resourceNames: readonly string[], { versionInfo = '', responseNonce = '' } = {}) =>
    said.call.write({
      versionInfo,
      node: undefined,
      resourceNames: [...resourceNames],
      typeUrl: SECRET_TYPE,
      responseNonce,
      errorDetail: undefined,
    });
  return { said, send };
}
async function delta(name: string) {
  const said = new Said<DeltaDiscoveryRequest, DeltaDiscoveryResponse>(sds().deltaSecrets(bearerMetadata(await tokenOf(name))));
  const send = (fields: Partial<DeltaDiscoveryRequest>) =>
    said.call.write({
      node: undefined,
      typeUrl: SECRET_TYPE,
      resourceNamesSubscribe: [],
      resourceNamesUnsubscribe: [],
      initialResourceVersions: {},
      responseNonce: '',
      errorDetail: undefined,
      ...fields,
    });
  const ask = (...resourceNamesSubscribe: string[]) => send({ resourceNamesSubscribe });
  const ack = ({ nonce }: DeltaDiscoveryResponse) => send({ responseNonce: nonce });
  return { said, send, ask, ack };
}

/** Until so many names are said not to be there: each when it is known. */
async function saidNone({ said, ack }: Awaited<ReturnType<typeof delta>>, count: number): Promise<void> {
  const none = new Set<string>();
  while (none.size < count) {
    const response = await said.next();
    for (const name of response.removedResources) none.add(name);
    ack(response);
  }
  assert.equal(none.size, count);
}

function textsOf(bytes: Uint8Array | undefined): Record<string, string> {
  const { type } = Secret.decode(bytes ?? new Uint8Array());
  assert.equal(type?.$case, 'genericSecret');
  const texts: Record<string, string> = {};
  const { secret, secrets: many } = type.value;
  for (const [name, source] of [...Object.entries(many), ...(secret === undefined ? [] : [['', secret] as const])])
    if (source.specifier?.$case === 'inlineBytes') texts[name] = Buffer.from(source.specifier.value).toString();
  return texts;
}

describe('a secret', () => {
  it('comes-whole-with-its-versions-side-by-side', async () => {
    await db({ 7: { key: 'sesame', 'other.pem': 'more' }, 8: { key: 'next' } }, '8');
    const { said, ask } = await delta('a');
    await eventually(() => records.records.some(({ event, version }) => event === 'changed' && version === '8'));
    ask('secret:foo/db');
    const { resources, removedResources } = await said.next();
    assert.deepEqual([resources.map(({ name }) => name), removedResources], [['secret:foo/db'], []]);
    assert.deepEqual(textsOf(resources[0]?.resource?.value), { '/version': '8', key: 'next', '7/key': 'sesame', '7/other.pem': 'more' });
  });

  it('comes-as-one-value-for-a-client-that-knows-one', async () => {
    const { said, send } = await stateOfTheWorld('a');
    send(['secret:foo/db/key']);
    const { resources } = await said.next();
    assert.deepEqual(
      resources.map(({ value }) => textsOf(value)),
      [{ '': 'sesame' }],
    );
    assert.equal(Secret.decode(resources[0]?.value ?? new Uint8Array()).name, 'secret:foo/db/key');
  });

  it('has-a-version-of-its-resource-that-tells-nothing-of-it', async () => {
    const { createHash } = await import('node:crypto');
    const { said, ask } = await delta('a');
    ask('secret:foo/db');
    const { resources } = await said.next();
    const value = resources[0]?.resource?.value ?? new Uint8Array();
    for (const digest of ['sha256', 'sha1', 'md5'])
      for (const content of [value, Buffer.from('sesame')])
        assert.ok(
          !createHash(digest)
            .update(content)
            .digest('base64url')
            .startsWith(resources[0]?.version ?? ''),
        );
  });
});

describe('what is not there for a client', () => {
  it('is-answered-the-same-whether-it-exists-or-not', async () => {
    const answers: unknown[] = [];
    for (const name of ['secret:foo/db', 'secret:foo/nothing', 'secret:nowhere/db', 'secret:foo/db/key']) {
      const { said, ask } = await delta('b');
      ask(name);
      const { nonce: _, ...answer } = await said.next();
      assert.deepEqual(answer.removedResources, [name]);
      answers.push({ ...answer, removedResources: [] });
    }
    for (const answer of answers) assert.deepEqual(answer, answers[0]);
    // And the twin, who may.
    const { said, ask } = await delta('a');
    ask('secret:foo/db');
    assert.equal((await said.next()).resources.length, 1);
  });

  it('comes-when-there-is-one-and-state-of-the-world-says-nothing-until-then', async () => {
    const [{ said, ask, ack }, world] = [await delta('a'), await stateOfTheWorld('a')];
    ask('secret:foo/late');
    world.send(['secret:foo/late']);
    const none = await said.next();
    assert.deepEqual(none.removedResources, ['secret:foo/late']);
    ack(none);
    assert.equal(world.said.all.length, 0);
    await secrets.secret('late', { versions: { 1: { key: 'late' } }, current: '1' });
    assert.deepEqual(
      (await said.next()).resources.map(({ name }) => name),
      ['secret:foo/late'],
    );
    assert.equal((await world.said.next()).resources.length, 1);
  });
});

describe('what is taken back', () => {
  it('is-removed-in-delta-and-empty-in-state-of-the-world', async () => {
    const [{ said, ask, ack }, world] = [await delta('a'), await stateOfTheWorld('a')];
    ask('secret:foo/db');
    ack(await said.next());
    world.send(['secret:foo/db']);
    const { nonce, versionInfo } = await world.said.next();
    world.send(['secret:foo/db'], { responseNonce: nonce, versionInfo });
    await secrets.remove('policy-foo-a.yaml');
    assert.deepEqual((await said.next()).removedResources, ['secret:foo/db']);
    assert.deepEqual(
      (await world.said.next()).resources.map(({ value }) => textsOf(value)),
      [{}],
    );
    // Whoever comes back with what it was told before hears it again.
    const again = await stateOfTheWorld('a');
    again.send(['secret:foo/db'], { versionInfo });
    assert.deepEqual(
      (await again.said.next()).resources.map(({ value }) => textsOf(value)),
      [{}],
    );
    const resumed = await delta('a');
    resumed.send({ resourceNamesSubscribe: ['secret:foo/db'], initialResourceVersions: { 'secret:foo/db': 'something' } });
    assert.deepEqual((await resumed.said.next()).removedResources, ['secret:foo/db']);
  });
});

describe('what is refused', () => {
  const ended = async (send: (client: Awaited<ReturnType<typeof delta>>) => void) => {
    const client = await delta('a');
    send(client);
    return (await client.said.refused).code;
  };

  for (const name of [
    'secret:../db',
    'secret:foo/../bar/db',
    'secret:foo',
    'secret:foo/db/../db',
    'secret:foo/db\n',
    'secret:*',
    'secret:',
  ])
    it(`no-name: ${JSON.stringify(name)}`, async () => assert.equal(await ended(({ ask }) => ask(name)), status.INVALID_ARGUMENT));

  it('secrets-and-certificates-on-one-stream', async () => {
    assert.equal(await ended(({ ask }) => ask('default', 'secret:foo/db')), status.INVALID_ARGUMENT);
    const later = await delta('a');
    later.ask('secret:foo/db');
    await later.said.next();
    later.ask('default');
    assert.equal((await later.said.refused).code, status.INVALID_ARGUMENT);
    const { said, ask } = await delta('a');
    ask('default');
    assert.deepEqual(
      (await said.next()).resources.map(({ name }) => name),
      ['default'],
    );
  });

  it('more-names-than-anybody-needs', async () => {
    const names = Array.from({ length: 257 }, (_, index) => `secret:foo/s${index}`);
    assert.equal(await ended(({ ask }) => ask(...names)), status.RESOURCE_EXHAUSTED);
    const stream = await delta('a');
    stream.ask(...names.slice(1));
    await saidNone(stream, 256);
  });

  it('more-names-on-several-streams-than-one-workload-may-have', async () => {
    const names = (from: number, count: number) => Array.from({ length: count }, (_, index) => `secret:foo/s${from + index}`);
    const [first, second] = [await delta('a'), await delta('a')];
    first.ask(...names(0, 200));
    await saidNone(first, 200);
    second.ask(...names(150, 100));
    await saidNone(second, 100);
    const third = await delta('a');
    third.ask(...names(250, 10));
    assert.equal((await third.said.refused).code, status.RESOURCE_EXHAUSTED);
    // It is its own room: another has all of it.
    const other = await delta('b');
    other.ask(...names(0, 200));
    await saidNone(other, 200);
  });

  it('everything-has-no-secrets-in-it', async () => {
    const { said, send } = await delta('a');
    send({});
    const { resources } = await said.next();
    assert.ok(resources.length > 0 && resources.every(({ name }) => !name.startsWith('secret:')));
  });
});

it('receipts-of-a-secret-and-of-its-values-are-of-one-secret', async () => {
  await db({ 7: { key: 'sesame', 'other.pem': 'more' }, 8: { key: 'next' } }, '8');
  await eventually(() => records.records.some(({ event, version }) => event === 'changed' && version === '8'));
  const { said, ask, ack } = await delta('a');
  ask('secret:foo/db', 'secret:foo/db/key');
  ack(await said.next());
  const holders = async () => Object(await plane.ask('control', 'POST', '/secrets', { name: 'db' })).secrets[0].holders;
  await eventually(async () => (await holders()).length === 2);
  const held = async () => (await holders()).map(({ version, dropped }: { version: string; dropped: number }) => [version, dropped]).sort();
  assert.deepEqual(await held(), [
    ['7', 0],
    ['8', 0],
  ]);
  await db({ 8: { key: 'next' } }, '8');
  ack(await said.next());
  await eventually(async () => (await held())[0][1] > 0 && (await held())[1][1] === 0);
});

it('a-name-that-is-let-go-of-is-held-no-more', async () => {
  const { said, send, ask, ack } = await delta('a');
  ask('secret:foo/db');
  ack(await said.next());
  const holders = async () => Object(await plane.ask('control', 'POST', '/secrets', { name: 'db' })).secrets[0].holders;
  await eventually(async () => (await holders()).length > 0);
  assert.ok((await holders()).every(({ dropped }: { dropped: number }) => dropped === 0));
  send({ resourceNamesUnsubscribe: ['secret:foo/db'] });
  await eventually(async () => (await holders()).every(({ dropped }: { dropped: number }) => dropped > 0));
});

it('ever-other-values-of-one-secret-are-new-names-too', async () => {
  const { said, send, ask } = await delta('a');
  for (let turn = 0; turn < 3; turn++) {
    const names = Array.from({ length: 250 }, (_, index) => `secret:foo/db/k${turn}-${index}`);
    ask(...names);
    send({ resourceNamesUnsubscribe: names });
  }
  assert.equal((await said.refused).code, status.RESOURCE_EXHAUSTED);
});

it('receipts-are-the-answers-of-whatever-client', async () => {
  const { said, send } = await stateOfTheWorld('a');
  send(['secret:foo/db/key']);
  const { nonce, versionInfo } = await said.next();
  send(['secret:foo/db/key'], { responseNonce: nonce, versionInfo });
  const holders = async () => Object(await plane.ask('control', 'POST', '/secrets', { name: 'db' })).secrets[0].holders;
  await eventually(async () => (await holders()).length === 1);
  const [{ spiffeId, pod, version, loaded }] = await holders();
  assert.deepEqual([spiffeId, pod, version, loaded], ['spiffe://cluster.local/ns/foo/sa/a', '', '7', 0]);
  said.call.cancel();
  await eventually(async () => (await holders())[0].left > 0);
});
