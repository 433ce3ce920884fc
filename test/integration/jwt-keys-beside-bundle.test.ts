// JWT keys reach a node whose sidecars are slow to take a bundle; and taking keys confirms no bundle.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { MeshNode } from '../../src/node/mesh-node.ts';
import { ControlPlane, TRUST_DOMAIN } from '../support/control-plane.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

/** More than the CA leaves unanswered on one stream. */
const CHANGES = 18;

it('jwt-keys-do-not-wait-for-the-sidecars-and-the-bundle-does', async () => {
  const records = new RecordingLog();
  await using plane = await ControlPlane.create(records.log);
  await plane.startCa();
  const { ca, log, now } = { ...plane.agentOptions(), ca: plane.address('ca') };
  const common = { trustBundleFile: undefined, caServerName: undefined, stateDir: undefined, joinTokenFile: undefined };
  const node = await MeshNode.start({ ...common, trustDomain: TRUST_DOMAIN, ca, caKind: 'handfast', log, now });
  let taken: () => void = () => undefined;
  try {
    const waiting = new Promise<void>((resolve) => {
      taken = resolve;
    });
    node.followTrust(() => waiting);
    const jwks = () => node.trust.trust.current?.jwks.get(TRUST_DOMAIN);
    const until = async (holds: () => boolean | Promise<boolean>) => {
      const deadline = Date.now() + 20_000;
      while (!(await holds())) {
        assert.ok(Date.now() < deadline, 'did not happen');
        await delay(5);
      }
    };
    const behind = async () => Object(await plane.ask('ca', 'GET', '/status')).rotation.behind;
    await until(() => jwks() !== undefined);
    for (let i = 0; i < CHANGES; i++) {
      const before = jwks() ?? '';
      await plane.ask('ca', 'POST', '/jwt-keys/withdraw', { kid: JSON.parse(before).keys[0].kid });
      await until(() => jwks() !== before);
    }
    assert.deepEqual(await behind(), ['local'], 'the keys have been confirmed, the bundle has not');
    taken();
    await until(async () => (await behind()).length === 0);
  } finally {
    taken();
    await node.stop();
  }
});
