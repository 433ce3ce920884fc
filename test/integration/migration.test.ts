// A migration under load: PERMISSIVE, client on, STRICT, and back, whichever side moves first. Mesh clients lose nothing; the one legacy caller is named beforehand, and
// what replay says is what then happens.

import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { after, before, describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { LoopbackMesh, type LoopbackPod } from '../support/loopback-mesh.ts';

const VIP = { address: '10.96.1.2', port: 80 };
const LEGACY = '127.2.0.9';
const BASE = `apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: ${VIP.address}, selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Pod
metadata: {name: batch, namespace: shop, labels: {app: batch}}
spec: {serviceAccountName: batch}
status: {podIP: ${LEGACY}}
`;
const server = (mode: string) => `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: ${mode}}}
`;
const client = (mode: string) => `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, trafficPolicy: {tls: {mode: ${mode}}}}
`;
const conversation = z.object({ client: z.string(), clientId: z.string(), transport: z.string() });
const strictCheck = z.object({ verdict: z.string(), offenders: z.array(conversation) });
const replay = z.object({ inbound: z.array(conversation.extend({ change: z.string(), code: z.string() })) });

let mesh: LoopbackMesh;
let web: LoopbackPod;
let caller: LoopbackPod;

before(async () => {
  mesh = await LoopbackMesh.start(
    [
      { namespace: 'shop', name: 'client', ip: '127.0.0.1' },
      { namespace: 'shop', name: 'web' },
    ],
    BASE + ['', server('PERMISSIVE'), client('DISABLE')].join('---\n'),
    { stages: { openedMs: 1_500, followedMs: 4_000 } },
  );
  web = mesh.pod('shop/web');
  caller = mesh.pod('shop/client');
  caller.sidecar.destination = VIP;
  await caller.knows({ key: 'shop/web.shop.svc.cluster.local', address: VIP.address });
});

after(() => mesh[Symbol.asyncDispose]());

const turn = (serverMode: string, clientMode: string) =>
  mesh.apply('objects.yaml', BASE + ['', server(serverMode), client(clientMode)].join('---\n'));

/** New connections all the time, and one that is kept open between requests and made again when it is ended cleanly. */
class Load implements AsyncDisposable {
  readonly failed: string[] = [];
  calls = 0;
  #over = false;
  readonly #loops: Promise<void>[];

  constructor() {
    this.#loops = [this.#fresh(), this.#fresh(), this.#kept()];
  }

  async #fresh(): Promise<void> {
    while (!this.#over) {
      this.#count(await caller.call(VIP));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async #kept(): Promise<void> {
    let socket: Socket | undefined;
    while (!this.#over) {
      if (socket === undefined || socket.readableEnded || socket.destroyed) {
        socket = connect({ port: caller.sidecar.sidecar.ports.outbound, host: '127.0.0.1' });
        socket.on('error', () => undefined);
      }
      const asked = socket;
      const answer = await new Promise<string>((resolve) => {
        asked.once('data', (text) => resolve(String(text)));
        asked.once('close', () => resolve('a request on a kept connection was lost'));
        asked.write('who');
      });
      this.#count(answer);
      asked.removeAllListeners('close');
      await new Promise((resolve) => setTimeout(resolve, 1_300));
    }
    socket?.end();
  }

  #count(answer: string): void {
    this.calls++;
    if (answer !== 'shop/web') this.failed.push(answer);
  }

  async stop(): Promise<void> {
    this.#over = true;
    await Promise.all(this.#loops);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop();
  }
}

/** Resolves when new calls of the mesh client go by the transport. */
async function dialledBy(transport: string): Promise<void> {
  const begun = caller.sidecar.records.records.length;
  const fresh = (index: number) => caller.sidecar.records.records.slice(begun).filter((record) => record.direction === 'outbound')[index];
  const deadline = Date.now() + 20_000;
  let run = 0;
  for (let index = 0; run < 20; ) {
    assert.ok(Date.now() < deadline, `the client does not dial ${transport}`);
    const record = fresh(index);
    if (record === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      continue;
    }
    run = record.transport === transport ? run + 1 : 0;
    index++;
  }
}

const legacyWorks = async () => assert.equal(await web.calledInPlaintext(LEGACY), 'shop/web');
const legacyIsRefused = async () => assert.match(await web.calledInPlaintext(LEGACY), /ECONNRESET|closed/);

/** The verdict on what was seen since the client was turned, as soon as the ledger has come up to control. */
async function namesTheLegacyCallerAlone(since: number): Promise<void> {
  const wanted = ['would break', [['shop/batch', 'spiffe://cluster.local/ns/shop/sa/batch', 'plaintext']]];
  const deadline = Date.now() + 10_000;
  let found: unknown;
  do {
    const sinceMs = Math.max(1, Date.now() - since);
    const check = strictCheck.parse(
      await mesh.plane.ask('control', 'POST', '/strict-check', { namespace: 'shop', minObservedMs: 0, sinceMs }),
    );
    found = [check.verdict, check.offenders.map(({ client: who, clientId, transport }) => [who, clientId, transport])];
    if (!isDeepStrictEqual(found, wanted)) await new Promise((resolve) => setTimeout(resolve, 100));
  } while (!isDeepStrictEqual(found, wanted) && Date.now() < deadline);
  assert.deepEqual(found, wanted);
}

async function wouldRefuse(): Promise<string[][]> {
  const files = [{ name: 'proposed.yaml', text: server('STRICT') }];
  const { inbound } = replay.parse(await mesh.plane.ask('control', 'POST', '/policy-replay', { files }));
  return inbound.map(({ client: who, change, code }) => [who, change, code]);
}

describe('nothing is lost by mesh clients', () => {
  it('when-the-client-moves-first', async () => {
    await using load = new Load();
    await dialledBy('plaintext');
    await turn('PERMISSIVE', 'ISTIO_MUTUAL');
    await dialledBy('mtls');
    // What was open drains: only then is plaintext of the client's over.
    await caller.sidecar.records.find(({ outcome }) => outcome === 'drained');
    await web.sidecar.records.find(
      ({ direction, transport, durationMs }) => direction === 'inbound' && transport === 'plaintext' && Number(durationMs) > 1_000,
    );
    const since = Date.now() + 1;
    await legacyWorks();
    await namesTheLegacyCallerAlone(since);
    const predicted = await wouldRefuse();
    assert.ok(
      predicted.some(([who, change, code]) => who === 'shop/batch' && change === 'would refuse' && code === 'PLAINTEXT_UNDER_STRICT'),
    );
    await turn('STRICT', 'ISTIO_MUTUAL');
    await web.obeys(({ mode }) => mode === 'STRICT');
    await legacyIsRefused();
    await dialledBy('mtls');
    await turn('PERMISSIVE', 'ISTIO_MUTUAL');
    await web.obeys(({ mode }) => mode === 'PERMISSIVE');
    await legacyWorks();
    await turn('PERMISSIVE', 'DISABLE');
    await dialledBy('plaintext');
    await load.stop();
    assert.deepEqual(load.failed, []);
    assert.ok(load.calls > 100, `${load.calls} calls`);
  });

  it('when-the-server-moves-first', async () => {
    await using load = new Load();
    await dialledBy('plaintext');
    // The client's side still says DISABLE: it is told before the server closes.
    await turn('STRICT', 'DISABLE');
    await dialledBy('mtls');
    await web.obeys(({ mode }) => mode === 'STRICT');
    await legacyIsRefused();
    await turn('STRICT', 'ISTIO_MUTUAL');
    await dialledBy('mtls');
    // Back, all at once.
    await turn('PERMISSIVE', 'DISABLE');
    await dialledBy('plaintext');
    await legacyWorks();
    await load.stop();
    assert.deepEqual(load.failed, []);
    assert.ok(load.calls > 100, `${load.calls} calls`);
  });
});
