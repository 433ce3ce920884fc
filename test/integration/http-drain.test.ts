// A sidecar that stops: who waits for nothing goes at once, and an answer that is under way is whole.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { test } from 'node:test';
import { TestCa } from '../support/pki.ts';
import { startTunnelledPair } from '../support/tunnelled-pair.ts';

for (const hbone of [true, false])
  test(hbone ? 'by tunnel' : 'by direct mTLS', async () => {
    const ca = await TestCa.create();
    const identities = {
      client: await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep'),
      server: await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin'),
    };
    let finish: ((response: ServerResponse) => void) | undefined;
    let ending: (() => void) | undefined;
    const asked = new Promise<ServerResponse>((resolve) => {
      finish = resolve;
    });
    const application = createServer({ keepAliveTimeout: 0 }, (request, response) => {
      if (request.url === '/begun') {
        response.writeHead(200, { 'content-length': 4 });
        response.write('ab');
        ending = () => response.end('cd');
      } else if (request.url === '/slow') finish?.(response);
      else response.end('quick');
    });
    await using pair = await startTunnelledPair({
      identities,
      server: { drainTimeoutMs: 20_000 },
      onConnection: (socket) => application.emit('connection', socket),
    });
    pair.replace(pair.world({ hbone, httpPorts: [pair.application.endpoint.port] }));
    pair.server.destination = pair.application.endpoint;
    if (!hbone) pair.client.destination = { address: '127.0.0.1', port: pair.server.sidecar.ports.inbound };
    const begin = (path: string): { socket: Socket; heard: () => string } => {
      const socket = pair.dial();
      let heard = '';
      socket.setEncoding('latin1');
      socket.on('data', (chunk: string) => {
        heard += chunk;
      });
      socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
      return { socket, heard: () => heard };
    };
    const idle = begin('/quick');
    await once(idle.socket, 'data');
    const begun = begin('/begun');
    await once(begun.socket, 'data');
    const slow = begin('/slow');
    const response = await asked;

    const stopped = pair.server.sidecar.stop();
    await once(idle.socket, 'end');
    idle.socket.end();
    assert.equal(slow.heard(), '');
    // Its head has left without a word of the end: it ends all the same, with its answer.
    ending?.();
    await once(begun.socket, 'end');
    begun.socket.end();
    assert.match(begun.heard(), /abcd$/);
    response.end('slow, and whole');
    await once(slow.socket, 'end');
    slow.socket.end();
    assert.match(slow.heard(), /^HTTP\/1\.1 200 OK\r\n(?:.+\r\n)*connection: close\r\n(?:.+\r\n)*\r\nslow, and whole$/i);
    await stopped;
    const ends = pair.server.records.records
      .filter(({ msg }) => msg === 'connection')
      .map(({ decision, outcome }) => `${decision} ${outcome}`);
    assert.deepEqual(ends, ['allowed closed', 'allowed closed', 'allowed closed']);
  });
