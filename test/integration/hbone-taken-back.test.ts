// A CONNECT that its peer takes back while the application is still being dialled: the dial ends with it, and so does the record.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { it } from 'node:test';
import { connectTo, reset } from '../support/h2-frames.ts';
import { rawClient } from '../support/h2-raw-client.ts';
import { TestCa } from '../support/pki.ts';
import { meshOf, startSidecar } from '../support/sidecar-harness.ts';

/** Listens, and answers nobody: its process stands still and its queue is full. */
const STUCK = `
  const server = require('node:net').createServer();
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => process.stdout.write(String(server.address().port)));
`;

it('ends-the-dial-and-the-record', async () => {
  const ca = await TestCa.create();
  const stuck = spawn(process.execPath, ['-e', STUCK], { stdio: ['ignore', 'pipe', 'inherit'] });
  const waiting: Socket[] = [];
  try {
    const port = Number(String((await once(stuck.stdout, 'data'))[0]));
    stuck.kill('SIGSTOP');
    for (let n = 0; n < 4; n++) waiting.push(connect(port, '127.0.0.1').on('error', () => undefined));
    await once(waiting[1] ?? stuck, 'connect');
    await using server = await startSidecar({
      namespace: 'bar',
      name: 'httpbin',
      identity: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
      settings: { dialTimeoutMs: 60_000 },
    });
    server.mesh.replace(meshOf({ workloads: [{ namespace: 'bar', name: 'httpbin', addresses: ['127.0.0.1'], hbone: true }] }));
    const peer = await rawClient(await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'), server.sidecar.ports.tunnel);
    peer.send(connectTo(1, `127.0.0.1:${port}`));
    await peer.heard();
    assert.equal(server.sidecar.tracker.size, 1);
    peer.send(reset(1));
    const { decision, code, reason } = await server.records.connection('inbound');
    assert.deepEqual([decision, code], ['failed', 'UNAVAILABLE']);
    assert.match(String(reason), /reset by the peer: CANCEL, before it was answered/);
    assert.equal(server.sidecar.tracker.size, 0);
    peer.socket.destroy();
  } finally {
    for (const socket of waiting) socket.destroy();
    stuck.kill('SIGKILL');
  }
});
