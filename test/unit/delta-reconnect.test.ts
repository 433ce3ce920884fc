// A client that holds more than it can name in one request comes back all the same, and ends with what the server has.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { encodeWorkload } from '../../src/discovery/workload-codec.ts';
import { registryChannelOptions } from '../../src/wire/grpc.ts';
import { A, resources, serve, startClient } from '../support/ads-rig.ts';

const opts = { timeout: 60_000 };
const nameOf = (index: number) => `local//Pod/some-namespace/some-deployment-5d9c7b8f4-${index}`;
const many = (count: number) => new Map(Array.from({ length: count }, (_, index) => [nameOf(index), Buffer.from('1')] as const));

describe('a new stream', opts, () => {
  // As an agent's, and as control's.
  for (const maxMessageBytes of [2 * 1024 * 1024, 4 * 1024 * 1024])
    test(
      `60,000 resources are asked for anew within ${maxMessageBytes} bytes: the added, the changed and the removed arrive`,
      opts,
      async () => {
        const rig = await serve(undefined, undefined, { bounds: { maxMessageBytes } });
        rig.cache.replace(A, many(60_000));
        const { applied, token } = startClient(rig);
        await applied.count(1);
        await rig.requests.count(2);
        const [first] = rig.streams.all;
        const ended = new Promise((resolve) => first?.once('cancelled', resolve));
        token.replace('second');
        await ended;
        rig.cache.apply(A, { upserts: resources({ [nameOf(1)]: 'changed', added: '1' }), removed: [nameOf(2)] });
        const all = await applied.until((events) => events.some(({ upserts }) => upserts.added !== undefined));
        const whole = all.at(-1);
        assert.deepEqual(
          [whole?.removed, whole?.upserts[nameOf(1)], Object.keys(whole?.upserts ?? {}).length],
          [[nameOf(2)], 'changed', 60_000],
        );
        assert.deepEqual(rig.requests.all[2]?.initialResourceVersions, {});
        // And it goes on with changes alone.
        rig.cache.apply(A, { upserts: resources({ later: '1' }), removed: [] });
        const last = (await applied.until((events) => events.some((event) => event.upserts.later === '1'))).at(-1);
        assert.deepEqual(last, { typeUrl: A, upserts: { later: '1' }, removed: [] });
      },
    );

  test('a refused first response takes nothing away, and the next good one does what it would have', opts, async () => {
    const rig = await serve(undefined, undefined, { bounds: { maxMessageBytes: 2 * 1024 * 1024 } });
    rig.cache.replace(A, many(40_000));
    const { applied, token } = startClient(rig, {
      refuse: ({ upserts }) => (Buffer.from(upserts.get('x') ?? []).toString() === 'bad' ? 'x is bad' : undefined),
    });
    await applied.count(1);
    await rig.requests.count(2);
    const [first] = rig.streams.all;
    const ended = new Promise((resolve) => first?.once('cancelled', resolve));
    token.replace('second');
    await ended;
    rig.cache.apply(A, { upserts: resources({ x: 'bad' }), removed: [nameOf(7)] });
    await rig.serverLog.count(1);
    assert.equal(applied.all.length, 1, 'nothing of a refused one is in force');
    rig.cache.apply(A, { upserts: resources({ x: 'good' }), removed: [nameOf(8)] });
    const last = (await applied.count(2))[1];
    assert.deepEqual([...(last?.removed ?? [])].sort(), [nameOf(7), nameOf(8)]);
    assert.equal(last?.upserts.x, 'good');
  });

  test('a few are named, and not sent again', opts, async () => {
    const rig = await serve();
    rig.cache.replace(A, many(5_000));
    const { applied, token } = startClient(rig);
    await applied.count(1);
    await rig.requests.count(2);
    token.replace('second');
    const again = (await rig.requests.count(3))[2];
    assert.equal(Object.keys(again?.initialResourceVersions ?? {}).length, 5_000);
    assert.deepEqual((await applied.count(2))[1], { typeUrl: A, upserts: {}, removed: [] });
  });
});

test('a registry of 100,000 workloads is one response that clients accept', () => {
  const service = (name: string): [string, { servicePort: number; targetPort: number }[]] => [
    `some-namespace/${name}.some-namespace.svc.cluster.local`,
    [80, 443, 9090].map((servicePort) => ({ servicePort, targetPort: servicePort + 8_000 })),
  ];
  const bytes = encodeWorkload({
    uid: nameOf(99_999),
    name: 'some-deployment-5d9c7b8f4-99999',
    namespace: 'some-namespace',
    identity: undefined,
    addresses: ['10.255.255.255', 'fd00:1234:5678:9abc:def0:1234:5678:9abc'],
    meshed: true,
    hbone: false,
    healthy: true,
    services: new Map([service('some-service'), service('some-service-headless'), service('some-service-canary')]),
    authorizationPolicies: ['istio-system/deny-all-but-some', 'some-namespace/allow-some-service'],
  }).length;
  // Beside its body: its name twice, its version, its type.
  const whole = 100_000 * (bytes + 2 * nameOf(99_999).length + 22 + 60);
  const limit = registryChannelOptions['grpc.max_receive_message_length'];
  assert.ok(whole < Number(limit), `${whole} of ${limit}`);
});
