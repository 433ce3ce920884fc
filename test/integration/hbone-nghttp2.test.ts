// Both sides against nghttp2, as node:http2 has it: somebody else's HTTP/2, neither more nor less polite than the mesh's other proxies.

import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  createSecureServer,
  type Http2SecureServer,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { contextOptions } from '../../src/tls/context.ts';
import { ending } from '../support/h2-applications.ts';
import { askThrough, startCaller } from '../support/h2-raw-server.ts';
import { TestCa } from '../support/pki.ts';
import type { RunningSidecar } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const ca = await TestCa.create();
const client = await ca.identity('spiffe://cluster.local/ns/foo/sa/sleep');
const server = await ca.identity('spiffe://cluster.local/ns/bar/sa/httpbin');
const body = randomBytes(5 * 1024 * 1024);
const hash = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

async function whole(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

describe('its client into our server', () => {
  let pair: TunnelledPair;
  let session: ClientHttp2Session;
  let serve: (socket: Socket) => void;

  before(async () => {
    pair = await startTunnelledPair({ identities: { client, server }, onConnection: (socket) => serve(socket) });
  });
  after(() => pair[Symbol.asyncDispose]());
  beforeEach(async () => {
    serve = (socket) => void socket.pipe(socket);
    session = dial();
    await once(session, 'connect');
  });
  afterEach(() => session.destroy());

  function dial(identity = client): ClientHttp2Session {
    const made = connectHttp2(`https://127.0.0.1:${pair.server.sidecar.ports.tunnel}`, {
      ...contextOptions(identity),
      maxSessionMemory: 100,
      checkServerIdentity: () => undefined,
    });
    made.on('error', () => undefined);
    return made;
  }

  const open = (authority = `127.0.0.1:${pair.application.endpoint.port}`): ClientHttp2Stream => {
    const stream = session.request({ ':method': 'CONNECT', ':authority': authority });
    stream.on('error', () => undefined);
    return stream;
  };

  it('200-streams-at-a-time', async () => {
    const answers = await Promise.all(
      Array.from({ length: 200 }, async (_, n) => {
        const stream = open();
        stream.end(`word ${n}`);
        return String(await whole(stream));
      }),
    );
    assert.deepEqual(
      answers,
      answers.map((_, n) => `word ${n}`),
    );
  });

  it('large-bodies-both-ways', async () => {
    const streams = Array.from({ length: 4 }, () => {
      const stream = open();
      stream.end(body);
      return whole(stream).then(hash);
    });
    assert.deepEqual(await Promise.all(streams), Array(4).fill(hash(body)));
  });

  it('a-reset-of-its-leaves-nothing-open', async () => {
    const accepted = Promise.withResolvers<Socket>();
    serve = accepted.resolve;
    const stream = open();
    stream.write('hello');
    const socket = await accepted.promise;
    // It ends its half before it resets.
    socket.on('end', () => socket.end());
    const end = ending(socket);
    stream.close(constants.NGHTTP2_CANCEL);
    await end;
  });

  it('a-reset-by-the-application-is-one-of-ours', async () => {
    serve = (socket) => socket.once('data', () => socket.resetAndDestroy());
    const stream = open();
    stream.write('hello');
    await once(stream, 'close');
    assert.notEqual(stream.rstCode, constants.NGHTTP2_NO_ERROR);
  });

  it('statuses-of-refusals', async () => {
    for (const [authority, status] of [
      ['10.9.9.9:80', 400],
      ['localhost:80', 400],
      ['127.0.0.1:1', 503],
    ] as const) {
      const [headers] = await once(open(authority), 'response');
      assert.equal(headers[':status'], status);
    }
    const get = session.request({ ':method': 'GET', ':path': '/' });
    assert.equal((await once(get, 'response'))[0][':status'], 405);
    const stream = open();
    stream.end('still');
    assert.equal(String(await whole(stream)), 'still');
  });

  it('a-goaway-of-ours-is-understood', async () => {
    const stream = open();
    stream.write('hello');
    await once(stream, 'data');
    const going = once(session, 'goaway');
    pair.server.identity.replace(await ca.identity(server.svid.id.uri));
    assert.equal((await going)[0], constants.NGHTTP2_NO_ERROR);
    stream.end('again');
    assert.equal(String(await whole(stream)), 'again');
    await once(session, 'close');
  });
});

describe('our client into its server', () => {
  let nghttp2: Http2SecureServer;
  let caller: RunningSidecar;
  let serve: (stream: ServerHttp2Stream) => void;
  let sessions: ServerHttp2Session[];

  async function start(settings: { maxConcurrentStreams?: number; initialWindowSize?: number } = {}): Promise<void> {
    sessions = [];
    nghttp2 = createSecureServer({ ...contextOptions(server), requestCert: true, settings });
    nghttp2.on('session', (session) => sessions.push(session));
    nghttp2.on('stream', (stream, headers) => {
      stream.on('error', () => undefined);
      if (headers[':method'] === 'CONNECT') serve(stream);
      else stream.respond({ ':status': 405 }, { endStream: true });
    });
    nghttp2.listen(0, '127.0.0.1');
    await once(nghttp2, 'listening');
    caller = await startCaller(client, (nghttp2.address() as AddressInfo).port);
    serve = (stream) => {
      stream.respond({ ':status': 200 });
      stream.pipe(stream);
    };
  }
  afterEach(async () => {
    await caller[Symbol.asyncDispose]();
    for (const session of sessions) session.destroy();
    nghttp2.close();
  });

  const dial = () => connect({ port: caller.sidecar.ports.outbound, host: '127.0.0.1', allowHalfOpen: true });

  it('200-streams-at-a-time', async () => {
    await start();
    const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => askThrough(dial(), `word ${n}`)));
    assert.deepEqual(
      answers,
      answers.map((_, n) => `word ${n}`),
    );
  });

  it('50-streams-where-it-takes-20-at-a-time', async () => {
    await start({ maxConcurrentStreams: 20 });
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => askThrough(dial(), `word ${n}`)));
    assert.deepEqual(
      answers,
      answers.map((_, n) => `word ${n}`),
    );
  });

  it('large-bodies-both-ways', async () => {
    await start();
    const hashes = Array.from({ length: 4 }, () => {
      const socket = dial();
      socket.end(body);
      return whole(socket).then(hash);
    });
    assert.deepEqual(await Promise.all(hashes), Array(4).fill(hash(body)));
  });

  it('a-small-window-of-its', async () => {
    await start({ initialWindowSize: 10 });
    const socket = dial();
    const some = body.subarray(0, 20_000);
    socket.end(some);
    assert.equal(hash(await whole(socket)), hash(some));
  });

  it('resets-either-way', async () => {
    await start();
    serve = (stream) => {
      stream.respond({ ':status': 200 });
      stream.once('data', () => stream.close(constants.NGHTTP2_INTERNAL_ERROR));
    };
    const first = dial();
    first.on('end', () => first.end());
    first.write('hello');
    await ending(first);
    const accepted = Promise.withResolvers<ServerHttp2Stream>();
    serve = (stream) => {
      stream.respond({ ':status': 200 });
      stream.resume();
      accepted.resolve(stream);
    };
    const second = dial();
    second.write('hello');
    const stream = await accepted.promise;
    const closed = once(stream, 'close');
    second.resetAndDestroy();
    await closed;
    assert.equal(stream.rstCode, constants.NGHTTP2_CANCEL);
  });

  it('a-goaway-of-its-is-followed-by-a-new-session', async () => {
    await start();
    const socket = dial();
    socket.write('hello');
    await once(socket, 'data');
    sessions[0]?.goaway();
    for (let tries = 0; sessions.length < 2 && tries < 100; tries++) assert.equal(await askThrough(dial(), 'late'), 'late');
    assert.equal(sessions.length, 2);
    socket.end('again');
    assert.equal(String(await whole(socket)), 'again');
  });
});
