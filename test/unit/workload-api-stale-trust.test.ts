// The Workload API gives no verdict by keys that might have been withdrawn since.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { status } from '@grpc/grpc-js';
import { validateJwtSvid } from '../../src/agent/workload-api-jwt.ts';
import type { NodeTrust } from '../../src/node/node-trust.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { JwtKey, nodeTrust } from '../support/jwt.ts';
import { TestCa } from '../support/pki.ts';

const NOW = Date.UTC(2030, 0, 1);
const ID = 'spiffe://cluster.local/ns/foo/sa/a';

test('without a list of revocations, and after the last one should have been replaced, there is none', async () => {
  const key = new JwtKey('k1');
  const svid = key.sign({ sub: ID, aud: ['b'], iat: NOW / 1000, exp: NOW / 1000 + 300 });
  const trust = nodeTrust(await TestCa.create(), [key]);
  const ask = (of: NodeTrust) => {
    const deps = { gate: { admit: () => ({}) }, trust: new Snapshot(of), now: () => NOW };
    return validateJwtSvid(
      { request: { audience: 'b', svid } } as Parameters<typeof validateJwtSvid>[0],
      deps as unknown as Parameters<typeof validateJwtSvid>[1],
    );
  };
  assert.equal((await ask(trust)).spiffeId, ID);
  for (const crl of [noRevocations, { ...trust.crl, nextUpdate: NOW }])
    await assert.rejects(ask({ ...trust, crl }), { code: status.UNAVAILABLE });
});
