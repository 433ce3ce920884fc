// A connection handed from one socket to another by its descriptor: unread, whole, and closed by whoever has it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { closeSync, fstatSync, openSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { attach, detach, discard } from '../../src/net/hand-over.ts';
import { collect } from '../support/sidecar-harness.ts';

let server: Server;
let client: Socket;
let accepted: Socket;

beforeEach(async () => {
  server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('not listening');
  const connection = once(server, 'connection');
  client = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true });
  client.write('early');
  [accepted] = await connection;
});
afterEach(async () => {
  client.destroy();
  server.close();
  await once(server, 'close');
});

describe('a connection that is handed over', () => {
  it('loses-no-byte-and-knows-its-peer', async () => {
    const { remotePort } = accepted;
    const duplicate = detach(accepted) ?? assert.fail();
    await once(accepted, 'close');
    const taken = attach(duplicate.fd);
    assert.equal(taken.readableFlowing, false);
    assert.equal(taken.remotePort, remotePort);
    taken.pipe(taken);
    client.end(' and late');
    assert.deepEqual(await collect(client), { text: 'early and late' });
  });

  it('that-nobody-takes-is-ended', async () => {
    const ended = new Promise((resolve) => client.on('error', () => undefined).once('close', resolve));
    client.on('end', () => client.end()).resume();
    const duplicate = detach(accepted) ?? assert.fail();
    discard(duplicate);
    await ended;
    // Again, and nothing happens.
    discard(duplicate);
  });

  it('what-has-its-number-later-is-left-alone', () => {
    const duplicate = detach(accepted) ?? assert.fail();
    closeSync(duplicate.fd);
    const opened = [];
    for (let tries = 0; tries < 100 && opened.at(-1) !== duplicate.fd; tries++) opened.push(openSync('/dev/null', 'r'));
    assert.equal(opened.at(-1), duplicate.fd);
    discard(duplicate);
    assert.ok(fstatSync(duplicate.fd).isCharacterDevice());
    for (const fd of opened) closeSync(fd);
  });

  it('that-is-closed-already-is-no-connection', async () => {
    accepted.destroy();
    await once(accepted, 'close');
    assert.equal(detach(accepted), undefined);
  });
});
