// Callers who go away at every point of a request, ten thousand times: nothing towards the application is left open (http-proxy by itself leaves one for each).

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { type HttpRig, httpRig, listening } from '../support/http-rig.ts';

const ABORTS = 10_000;
const AT_ONCE = 100;

/** How far a caller comes: what it says, and what it waits for before it goes. */
const ways: Readonly<Record<string, { say: string; hear: RegExp | undefined }>> = {
  'half a head': { say: 'GET /silent HTTP/1.1\r\nHost: a\r\nX: ', hear: undefined },
  'no answer yet': { say: 'GET /silent HTTP/1.1\r\nHost: a\r\n\r\n', hear: undefined },
  'an answer without an end': { say: 'GET /endless HTTP/1.1\r\nHost: a\r\n\r\n', hear: /\r\n\r\n/ },
  'an answer nobody reads': { say: 'GET /flood HTTP/1.1\r\nHost: a\r\n\r\n', hear: /HTTP/ },
  'half a body': { say: 'POST /silent HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc', hear: undefined },
  'chunks without an end': { say: 'POST /silent HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n', hear: undefined },
  'waiting for a 100': { say: 'POST /expect HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n', hear: undefined },
  'pipelined behind a silent one': { say: 'GET /silent HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(5), hear: undefined },
  'an upgrade without an answer': { say: upgradeOf('/silent'), hear: undefined },
  'an upgrade with words behind it': { say: `${upgradeOf('/silent')}early`, hear: undefined },
  'an upgrade behind a silent request': { say: `GET /silent HTTP/1.1\r\nHost: a\r\n\r\n${upgradeOf('/silent')}`, hear: undefined },
  'an upgrade that is answered without an end': { say: upgradeOf('/refused'), hear: undefined },
  'an open WebSocket': { say: upgradeOf('/socket'), hear: /101 Switching/ },
};

function upgradeOf(path: string): string {
  return `GET ${path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nSec-WebSocket-Version: 13\r\n\r\n`;
}

const endings: Readonly<Record<string, (socket: Socket) => void>> = {
  reset: (socket) => socket.resetAndDestroy(),
  FIN: (socket) => socket.destroy(),
};

describe('callers that go away', () => {
  const application = createServer(respond).on('checkContinue', () => undefined);
  application.on('upgrade', (request: IncomingMessage, socket: Socket) => {
    socket.on('error', () => undefined);
    socket.once('end', () => socket.end()).resume();
    if (request.url === '/refused') socket.write('HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nabc');
    if (request.url === '/socket') socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  });
  let rig: HttpRig;

  before(async () => {
    rig = await httpRig({ applicationPort: await listening(application) });
  });
  after(async () => {
    await rig[Symbol.asyncDispose]();
    application.closeAllConnections();
    application.close();
  });

  test(`${ABORTS} aborts leave nothing open`, async () => {
    const kinds = Object.values(ways).flatMap((way) => Object.values(endings).map((end) => ({ way, end })));
    for (let begun = 0; begun < ABORTS; begun += AT_ONCE) {
      const batch = Array.from({ length: AT_ONCE }, (_, nth) => kinds[(begun + nth) % kinds.length]);
      await Promise.all(batch.map((kind) => kind && abortOnce(kind)));
    }
    await settled(() => rig.upstreams.size === 0 && rig.serving === 0);
    assert.equal(rig.upstreams.size, 0, 'sockets to the application');
    assert.equal(rig.serving, 0, 'connections of callers');
    // The same path still answers, and what was answered is let go of as well.
    const answer = await fetch(`http://127.0.0.1:${rig.port}/quick`, { headers: { connection: 'close' } });
    assert.equal(await answer.text(), 'quick');
    await settled(() => rig.upstreams.size === 0);
    assert.equal(await connections(), 0, 'as the application sees it');
  });

  async function abortOnce({ way, end }: { way: { say: string; hear: RegExp | undefined }; end: (socket: Socket) => void }): Promise<void> {
    const socket = connect({ host: '127.0.0.1', port: rig.port });
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write(way.say);
    if (way.hear === undefined) await new Promise((resolve) => setTimeout(resolve, Math.random() * 5));
    else await once(socket, 'data');
    end(socket);
    if (!socket.closed) await once(socket, 'close');
  }

  function connections(): Promise<number> {
    return new Promise((resolve, reject) => application.getConnections((error, count) => (error ? reject(error) : resolve(count))));
  }

  async function settled(holds: () => boolean): Promise<void> {
    const deadline = performance.now() + 10_000;
    while (!holds() && performance.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
  }
});

function respond(request: IncomingMessage, response: ServerResponse): void {
  response.on('error', () => undefined);
  request.on('error', () => undefined);
  if (request.url === '/quick') response.end('quick');
  else if (request.url === '/endless') {
    const timer = setInterval(() => response.write('more\n'), 5);
    response.once('close', () => clearInterval(timer));
    response.write('begin\n');
  } else if (request.url === '/flood') {
    const chunk = Buffer.alloc(64 * 1024);
    const flood = () => {
      while (!response.destroyed && response.write(chunk));
    };
    response.on('drain', flood);
    flood();
  } else request.resume();
}
