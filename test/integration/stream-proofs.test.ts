// A stream lasts no longer than the process that proved itself, and a workload holds no more of them than its share.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { credentials, type ServiceError, status } from '@grpc/grpc-js';
import { meshTypeUrls } from '../../src/discovery/mesh-source.ts';
import { AggregatedDiscoveryServiceClient } from '../../src/wire/gen/envoy/service/discovery/v3/ads.ts';
import { bearerMetadata } from '../../src/wire/grpc.ts';
import { ControlPlane } from '../support/control-plane.ts';
import { ForeignStream } from '../support/handed-on-stream.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

let records: RecordingLog;
let plane: ControlPlane;

beforeEach(async () => {
  records = new RecordingLog();
  plane = await ControlPlane.create(records.log);
});

afterEach(() => plane[Symbol.asyncDispose]());

const streams = async (): Promise<unknown[]> => Object(await plane.ask('agent', 'GET', '/status')).streams;

async function eventually(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 20_000;
  while (!(await holds())) {
    assert.ok(Date.now() < deadline, what);
    await delay(10);
  }
}

/** With registrations the process is the proof; without them the token stands alone, and its bearer must still be there. */
const proofs: Readonly<Record<string, () => Promise<{ token?: string }>>> = {
  'by-its-registration': async () => {
    await plane.startControl();
    await plane.startCa();
    const file = join(plane.dir, 'sleep.token');
    await writeFile(file, await plane.token('sleep'));
    const selectors = `{ uid: ${process.getuid?.() ?? 0} }`;
    const workloads = `workloads:\n  - { spiffeId: "spiffe://cluster.local/ns/foo/sa/sleep", tokenFile: ${file}, selectors: ${selectors} }\n`;
    await writeFile(join(plane.dir, 'workloads.yaml'), workloads);
    await plane.startAgent({ workloadsFile: join(plane.dir, 'workloads.yaml'), rotateEveryMs: 200 });
    return {};
  },
  'by-its-token-alone': async () => {
    await plane.start({ agent: { rotateEveryMs: 200 } });
    return { token: await plane.token('sleep') };
  },
};

for (const [name, start] of Object.entries(proofs)) {
  describe(`a stream opened ${name}`, () => {
    it('gives-each-new-key-to-the-process-that-lives', async () => {
      await using stream = new ForeignStream(plane.socket('agent'), await start());
      await eventually('three keys', () => stream.keys >= 3);
    });

    it('ends-when-its-process-has-and-whoever-holds-the-socket-is-given-no-key', async () => {
      await using stream = new ForeignStream(plane.socket('agent'), { ...(await start()), handOn: true });
      await stream.exited();
      const before = stream.keys;
      assert.notEqual(stream.holder, undefined);
      await eventually('the stream ended by the next certificate', async () => (await streams()).length === 0);
      assert.equal(stream.keys, before);
    });
  });
}

describe('a discovery stream', () => {
  /** Asks so often; the status it ends with, or undefined once it was answered and nothing was wrong for a while. */
  const asked = async (times: number): Promise<number | undefined> => {
    const client = new AggregatedDiscoveryServiceClient(plane.address('agent'), credentials.createInsecure());
    const call = client.deltaAggregatedResources(bearerMetadata(await plane.token('sleep')));
    try {
      const answered = new Promise<undefined>((resolve) => call.on('data', () => resolve(undefined)));
      const ended = new Promise<number>((resolve) => call.on('error', (error: ServiceError) => resolve(error.code)));
      const request = {
        node: undefined,
        resourceNamesSubscribe: [],
        resourceNamesUnsubscribe: [],
        responseNonce: '',
        errorDetail: undefined,
      };
      for (let i = 0; i < times; i++) call.write({ ...request, typeUrl: meshTypeUrls[0] ?? '', initialResourceVersions: {} });
      return await (times > 100 ? ended : Promise.race([answered, ended]));
    } finally {
      call.cancel();
      client.close();
    }
  };

  it('that-asks-too-often-is-ended-and-one-that-does-not-is-served', async () => {
    await plane.start();
    assert.equal(await asked(50), undefined);
    assert.equal(await asked(800), status.RESOURCE_EXHAUSTED);
  });
});
