// Callers in network namespaces of their own: which pod a process is in decides which workload it is.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { Attestor } from '../../src/agent/attestor.ts';
import { serveWorkloadApi } from '../../src/agent/workload-api.ts';
import { WorkloadRegistrations } from '../../src/agent/workload-registrations.ts';
import type { NodeTrust } from '../../src/node/node-trust.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { JwtKey, nodeTrust } from '../support/jwt.ts';
import { type Pod, PodNetwork, requireNamespaces } from '../support/namespaces.ts';
import { TestCa } from '../support/pki.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';
import { WorkloadCaller, workloadCallerCommand } from '../support/workload-caller.ts';

const skip = requireNamespaces();
const ip = (...args: string[]) => promisify(execFile)('ip', args, { env: { PATH: `${process.env.PATH}:/usr/sbin:/sbin` } });

describe('the Workload API for pods', { skip }, () => {
  const stopping = new AbortController();
  const trust = new Snapshot<NodeTrust>();
  let dir: string;
  let ca: TestCa;
  let network: PodNetwork;
  let httpbin: Pod;
  let sleep: Pod;
  let api: { close(): Promise<void> };
  const key = new JwtKey('k1');
  const path = () => join(dir, 'workload.sock');
  const call = (pod: Pod) => new WorkloadCaller(pod.spawn(workloadCallerCommand(path()), { stdio: ['ignore', 'pipe', 'inherit'] }));

  before(async () => {
    dir = await mkdtemp('/tmp/hf-wlns-');
    ca = await TestCa.create();
    trust.replace(nodeTrust(ca, [key]));
    network = await PodNetwork.create('wl');
    [httpbin, sleep] = [await network.addPod('httpbin'), await network.addPod('sleep')];
    await writeFile(
      join(dir, 'w.yaml'),
      `workloads:
  - spiffeId: spiffe://cluster.local/ns/bar/sa/httpbin
    tokenFile: ${join(dir, 'token')}
    selectors: { networkNamespace: /run/netns/${httpbin.netns} }
`,
    );
    await writeFile(join(dir, 'token'), 'token');
    const { log } = new RecordingLog();
    const registrations = new WorkloadRegistrations({ file: join(dir, 'w.yaml'), log });
    await registrations.start(stopping.signal);
    const nobody = () => assert.fail('bundles need no CA');
    api = await serveWorkloadApi({
      path: path(),
      attestor: new Attestor(registrations),
      identities: { acquire: nobody },
      signer: { signJwtSvid: nobody },
      trust,
      log,
      now: Date.now,
    });
  });

  after(async () => {
    await api?.close();
    stopping.abort();
    await network?.dispose();
    if (dir !== undefined) await rm(dir, { recursive: true });
  });

  it('a-process-in-the-pod-is-served', async () => {
    await using caller = call(httpbin);
    assert.match(await caller.line(), /^data/);
  });

  it('a-process-in-another-pod-is-refused', async () => {
    await using caller = call(sleep);
    assert.match(await caller.line(), /^status 7/);
  });

  it('a-process-of-the-host-is-refused', async () => {
    await using caller = WorkloadCaller.spawn(path());
    assert.match(await caller.line(), /^status 7/);
  });

  it('a-pod-that-was-made-anew-under-its-name-is-served-and-what-is-left-of-the-old-one-is-not', async () => {
    await using old = call(httpbin);
    assert.match(await old.line(), /^data/);
    await ip('netns', 'del', httpbin.netns);
    await ip('netns', 'add', httpbin.netns);
    await using fresh = call(httpbin);
    assert.match(await fresh.line(), /^data/);
    trust.replace(nodeTrust([ca, await TestCa.create('other.example')], [key]));
    assert.match(await fresh.line(), /^data/);
    assert.match(await old.line(), /^status 7/);
  });
});
