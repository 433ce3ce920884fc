// The HTTP path byte by byte: what a caller says, what the application hears of it, and what could be read in two ways, which is refused.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { type HttpRig, httpRig, listening, pass, say } from '../support/http-rig.ts';

/** Answers every request that it hears whole, and keeps what it heard, connection by connection. */
class Application {
  readonly heard: string[] = [];
  readonly sockets: Socket[] = [];
  answer = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
  readonly server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    const nth = this.heard.push('') - 1;
    this.sockets.push(socket);
    let begun = 0;
    socket.setEncoding('latin1');
    socket.on('error', () => undefined);
    socket.on('end', () => socket.end());
    socket.on('data', (chunk: string) => {
      this.heard[nth] += chunk;
      const rest = (this.heard[nth] ?? '').slice(begun);
      const length = /content-length: (\d+)/i.exec(rest)?.[1];
      const isWhole = /transfer-encoding: chunked/i.test(rest)
        ? /\r\n0\r\n(?:.+\r\n)*\r\n$/.test(rest)
        : rest.length >= rest.indexOf('\r\n\r\n') + 4 + Number(length ?? 0);
      if (!rest.includes('\r\n\r\n') || !isWhole) return;
      begun += rest.length;
      socket.write(this.answer, 'latin1');
    });
  });

  reset(): void {
    this.heard.length = 0;
    this.answer = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
  }
}

const application = new Application();
let rig: HttpRig;
before(async () => {
  rig = await httpRig({ applicationPort: await listening(application.server) });
});
afterEach(async () => {
  while (rig.serving > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  application.reset();
  rig.judge = () => pass;
  rig.ended.length = 0;
});
after(async () => {
  await rig[Symbol.asyncDispose]();
  for (const socket of application.sockets) socket.destroy();
  application.server.close();
});

const statusOf = (answer: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1] ?? 0);
const headOf = (text: string) => text.slice(0, text.indexOf('\r\n\r\n'));

describe('refused, and nothing of it reaches the application', () => {
  const H = 'Host: a\r\n';
  const refused: Readonly<Record<string, readonly [status: number, text: string]>> = {
    'Content-Length and Transfer-Encoding': [
      400,
      `POST / HTTP/1.1\r\n${H}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    ],
    'Transfer-Encoding and Content-Length': [
      400,
      `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n`,
    ],
    'two Content-Lengths': [400, `POST / HTTP/1.1\r\n${H}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`],
    'two equal Content-Lengths': [400, `POST / HTTP/1.1\r\n${H}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`],
    'a list as Content-Length': [400, `POST / HTTP/1.1\r\n${H}Content-Length: 3, 3\r\n\r\nabc`],
    'a signed Content-Length': [400, `POST / HTTP/1.1\r\n${H}Content-Length: +3\r\n\r\nabc`],
    'a negative Content-Length': [400, `POST / HTTP/1.1\r\n${H}Content-Length: -1\r\n\r\n`],
    'a hexadecimal Content-Length': [400, `POST / HTTP/1.1\r\n${H}Content-Length: 0x3\r\n\r\nabc`],
    'a huge Content-Length': [400, `POST / HTTP/1.1\r\n${H}Content-Length: 99999999999999999999\r\n\r\nabc`],
    'an unknown coding': [501, `POST / HTTP/1.1\r\n${H}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n`],
    'a coding before chunked': [501, `POST / HTTP/1.1\r\n${H}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`],
    'chunked twice': [400, `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n`],
    'chunked in two fields': [400, `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    'chunked and then identity': [400, `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n`],
    'a space before the colon': [400, `POST / HTTP/1.1\r\n${H}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n`],
    'a folded line': [400, `POST / HTTP/1.1\r\n${H}X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    'a tab before the name': [400, `POST / HTTP/1.1\r\n${H}\tTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    'a bare line feed in the head': [400, `GET / HTTP/1.1\n${H}\r\n`],
    'a bare carriage return in a value': [400, `GET / HTTP/1.1\r\n${H}X-A: b\rX-Forwarded-Client-Cert: evil\r\n\r\n`],
    'a NUL in a value': [400, `GET / HTTP/1.1\r\n${H}X-A: b\0c\r\n\r\n`],
    'a NUL in a name': [400, `GET / HTTP/1.1\r\n${H}X\0A: b\r\n\r\n`],
    'a name with a space': [400, `GET / HTTP/1.1\r\n${H}X A: b\r\n\r\n`],
    'an empty name': [400, `GET / HTTP/1.1\r\n${H}: b\r\n\r\n`],
    'Transfer-Encoding in HTTP/1.0': [400, `POST / HTTP/1.0\r\n${H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`],
    'no Host': [400, 'GET / HTTP/1.1\r\n\r\n'],
    'two Hosts': [400, `GET / HTTP/1.1\r\n${H}Host: b\r\n\r\n`],
    'two equal Hosts': [400, `GET / HTTP/1.1\r\n${H}${H}\r\n`],
    'a Host with a space': [400, 'GET / HTTP/1.1\r\nHost: a b\r\n\r\n'],
    'a Host with a path': [400, 'GET / HTTP/1.1\r\nHost: a/b\r\n\r\n'],
    'a Host with a user': [400, 'GET / HTTP/1.1\r\nHost: x@a\r\n\r\n'],
    'a target of another host': [400, `GET http://b/ HTTP/1.1\r\n${H}\r\n`],
    'a target without a slash': [400, `GET a HTTP/1.1\r\n${H}\r\n`],
    'a target that climbs out': [400, `GET /../etc HTTP/1.1\r\n${H}\r\n`],
    'a target with a NUL': [400, `GET /a%00b HTTP/1.1\r\n${H}\r\n`],
    'a target with a fragment': [400, `GET /a#b HTTP/1.1\r\n${H}\r\n`],
    'a space in the target': [400, `GET /a b HTTP/1.1\r\n${H}\r\n`],
    'HTTP/2 by prior knowledge': [400, 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    'HTTP/0.9': [505, 'GET /\r\n\r\n'],
    'HTTP/1.2': [400, `GET / HTTP/1.2\r\n${H}\r\n`],
    'HTTP/2.0 in words': [505, `GET / HTTP/2.0\r\n${H}\r\n`],
    'no method at all': [400, `GARBAGE / HTTP/1.1\r\n${H}\r\n`],
    'a method in lower case': [400, `get / HTTP/1.1\r\n${H}\r\n`],
    CONNECT: [405, `CONNECT a:80 HTTP/1.1\r\n${H}\r\n`],
    'an unknown Expect': [417, `POST / HTTP/1.1\r\n${H}Expect: miracles\r\nContent-Length: 1\r\n\r\na`],
    'a host with a port that is none': [400, 'GET / HTTP/1.1\r\nHost: a:x\r\n\r\n'],
    'a host with two ports': [400, 'GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n'],
    'an escaped host': [400, 'GET / HTTP/1.1\r\nHost: %61\r\n\r\n'],
    'two hosts in one': [400, 'GET / HTTP/1.1\r\nHost: a,b\r\n\r\n'],
    'an empty host': [400, 'GET / HTTP/1.1\r\nHost:\r\n\r\n'],
    'a path of 9 KiB': [414, `GET /${'a'.repeat(9_000)} HTTP/1.1\r\n${H}\r\n`],
    'a head of 70 KiB': [431, `GET / HTTP/1.1\r\n${H}X-A: ${'a'.repeat(70_000)}\r\n\r\n`],
    '201 fields': [431, `GET / HTTP/1.1\r\n${H}${'X-A: b\r\n'.repeat(200)}\r\n`],
    'a TLS ClientHello': [400, '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'],
  };
  for (const [what, [status, text]] of Object.entries(refused)) {
    test(what, async () => {
      const answer = await say(rig.port, Buffer.from(text, 'latin1'));
      assert.equal(statusOf(answer), status, answer);
      assert.deepEqual(application.heard.join(''), '');
      assert.equal(rig.ended.length, 1, 'one record');
      assert.equal(rig.ended[0]?.decision, 'refused');
      assert.equal(rig.ended[0]?.code, 'REQUEST_INVALID');
    });
  }

  for (const [what, first] of Object.entries({
    'two Hosts': 'GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n',
    'a fragment': 'GET /#a HTTP/1.1\r\nHost: a\r\n\r\n',
    'an unknown coding': 'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    'an unknown Expect': 'POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\na',
  }))
    test(`what follows ${what} is not judged, not dialled and not answered`, async () => {
      const answer = await say(rig.port, `${first}POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc`);
      assert.equal(answer.split('HTTP/1.1 ').length - 1, 1, answer);
      assert.equal(application.heard.join(''), '');
      assert.equal(rig.ended.length, 1);
    });

  test('what follows a request that cannot be read is not read either', async () => {
    const answer = await say(
      rig.port,
      `POST / HTTP/1.1\r\n${H}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n${H}\r\n`,
    );
    assert.equal(answer.split('HTTP/1.1 ').length - 1, 1);
    assert.deepEqual(application.heard.join(''), '');
  });

  test('a bad chunk ends both sides', async () => {
    const answer = await say(
      rig.port,
      `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n\r\nGET /smuggled HTTP/1.1\r\n${H}\r\n`,
    );
    assert.doesNotMatch(answer, /200/);
    assert.doesNotMatch(application.heard.join(''), /smuggled/);
  });

  test('a chunk size that overflows', async () => {
    const answer = await say(rig.port, `POST / HTTP/1.1\r\n${H}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nabc\r\n0\r\n\r\n`);
    assert.doesNotMatch(answer, /200/);
  });
});

describe('taken, and the application hears exactly this', () => {
  /** Without the request id, which is another each time. */
  const heard = () => (application.heard[0] ?? '').replace(/x-request-id: [0-9a-f-]{36}\r\n/, '');
  const cases: Readonly<Record<string, readonly [text: string, heard: string]>> = {
    'a plain GET': ['GET /a?b=c&d HTTP/1.1\r\nHost: a:80\r\n\r\n', 'GET /a?b=c&d HTTP/1.1\r\nhost: a:80\r\n'],
    'names as they were written, repeated ones repeated, in order': [
      'GET / HTTP/1.1\r\nHost: a\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n',
      'GET / HTTP/1.1\r\nhost: a\r\nX-B: 1\r\nX-B: 3\r\nx-a: 2\r\nCookie: a=1; b=2\r\n',
    ],
    'no field of one connection alone': [
      'GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\nTE: gzip\r\nX-Yours: 2\r\n\r\n',
      'GET / HTTP/1.1\r\nhost: a\r\nX-Yours: 2\r\n',
    ],
    'Connection takes no field away that makes the message': [
      'POST / HTTP/1.1\r\nHost: a\r\nConnection: host, content-length, authorization\r\nAuthorization: b\r\nContent-Length: 1\r\n\r\nx',
      'POST / HTTP/1.1\r\nhost: a\r\nAuthorization: b\r\ncontent-length: 1\r\n',
    ],
    'no certificate of a stranger, by whatever name, and not for being listed': [
      'GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: By=x;URI=y\r\nx_forwarded_client_cert: z\r\nX-FORWARDED_CLIENT-CERT: z\r\nConnection: x-forwarded-client-cert\r\n\r\n',
      'GET / HTTP/1.1\r\nhost: a\r\n',
    ],
    'two slashes and an address in the path': [
      'GET //a//http://b//c HTTP/1.1\r\nHost: a\r\n\r\n',
      'GET /a//http://b//c HTTP/1.1\r\nhost: a\r\n',
    ],
    'question marks in the query': ['GET /a?b=//c?d/../e HTTP/1.1\r\nHost: a\r\n\r\n', 'GET /a?b=//c?d/../e HTTP/1.1\r\nhost: a\r\n'],
    'an absolute target': ['GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n', 'GET /b?c HTTP/1.1\r\nhost: a\r\n'],
    'OPTIONS of the server': ['OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n', 'OPTIONS * HTTP/1.1\r\nhost: a\r\n'],
    'a POST without a body': ['POST / HTTP/1.1\r\nHost: a\r\n\r\n', 'POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n'],
    'an h2c upgrade is a plain request': [
      'GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n',
      'GET / HTTP/1.1\r\nhost: a\r\n',
    ],
    'HTTP/1.0 with a host': ['GET / HTTP/1.0\r\nHost: a\r\n\r\n', 'GET / HTTP/1.1\r\nhost: a\r\n'],
    'umlauts in a value': ['GET / HTTP/1.1\r\nHost: a\r\nX-A: \xfc\r\n\r\n', 'GET / HTTP/1.1\r\nhost: a\r\nX-A: \xfc\r\n'],
    'an empty value': ['GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\n\r\n', 'GET / HTTP/1.1\r\nhost: a\r\nX-A: \r\n'],
  };
  for (const [what, [text, wanted]] of Object.entries(cases)) {
    test(what, async () => {
      const answer = await say(rig.port, Buffer.from(text, 'latin1'), { quietMs: 150 });
      assert.equal(statusOf(answer), 200, answer);
      assert.equal(`${headOf(heard())}\r\n`.replace('Connection: keep-alive\r\n', ''), wanted);
    });
  }

  for (const [what, text] of Object.entries({
    'a GET with a Trailer': 'GET / HTTP/1.1\r\nHost: a\r\nTrailer: x\r\n\r\n',
    'a POST by length with a Trailer': 'POST / HTTP/1.1\r\nHost: a\r\nTrailer: x\r\nContent-Length: 1\r\n\r\na',
  }))
    test(`${what} goes on without it (Node throws)`, async () => {
      assert.equal(statusOf(await say(rig.port, text)), 200);
      assert.doesNotMatch(heard(), /trailer/i);
    });

  test('what follows a Connection: close is dropped', async () => {
    const answer = await say(rig.port, 'GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n');
    assert.equal(answer.split('HTTP/1.1 200').length - 1, 1);
    assert.doesNotMatch(application.heard.join(), /\/2/);
  });

  test('a caller that says no more gets its answer', async () => {
    const answer = await say(rig.port, 'GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n', {
      end: true,
      quietMs: 2_000,
    });
    assert.equal(answer.split('HTTP/1.1 200').length - 1, 2);
  });

  test('no claim of a caller in trailers', async () => {
    rig.judge = () => ({ allowed: true, remove: ['x-claim'], add: [['x-claim', 'ours']] });
    await say(
      rig.port,
      'POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX_Claim: forged\r\nX-Request-Id: forged\r\n\r\n',
    );
    assert.match(heard(), /x-claim: ours/);
    assert.doesNotMatch(heard(), /forged/);
  });

  test('HTTP/1.0 without a host gets the address, and a connection that ends', async () => {
    const answer = await say(rig.port, 'GET / HTTP/1.0\r\n\r\n');
    assert.match(heard(), /^GET \/ HTTP\/1\.1\r\nhost: 127\.0\.0\.1:\d+\r\n/);
    assert.match(answer, /connection: close/i);
  });

  test('a DELETE with chunks keeps them (http-proxy would say Content-Length: 0)', async () => {
    await say(rig.port, 'DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n');
    assert.match(heard(), /transfer-encoding: chunked\r\n/);
    assert.doesNotMatch(headOf(heard()), /content-length/i);
    assert.match(heard(), /3\r\nabc\r\n0\r\n\r\n$/);
  });

  test('a body by length', async () => {
    await say(rig.port, 'PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc');
    assert.match(heard(), /content-length: 3\r\n[\s\S]*\r\n\r\nabc$/);
  });

  test('trailers go on, but for those that are none', async () => {
    await say(
      rig.port,
      'POST / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 9\r\nX-Forwarded-Client-Cert: By=x\r\nX_Forwarded_Client_Cert: By=x\r\nHost: b\r\nAuthorization: c\r\n\r\n',
    );
    assert.match(heard(), /Trailer: X-Sum\r\n/);
    assert.match(heard(), /0\r\nX-Sum: 9\r\n\r\n$/);
  });

  test('a request id that is sound stays', async () => {
    await say(rig.port, 'GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-1\r\n\r\n');
    assert.match(heard(), /x-request-id: abc-1\r\n/);
    assert.equal(rig.ended[0]?.request?.id, 'abc-1');
  });

  for (const bad of ['a b', 'a'.repeat(129), '"', '']) {
    test(`a request id like ${JSON.stringify(bad.slice(0, 9))} does not`, async () => {
      await say(rig.port, `GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: ${bad}\r\n\r\n`);
      assert.match(application.heard[0] ?? '', /x-request-id: [0-9a-f-]{36}\r\n/);
    });
  }

  test('pipelined requests one after the other, on one connection, answered in order', async () => {
    const answer = await say(
      rig.port,
      'GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nxGET /3 HTTP/1.1\r\nHost: a\r\n\r\n',
    );
    assert.equal(answer.split('HTTP/1.1 200').length - 1, 3);
    assert.equal(application.heard.length, 1);
    assert.deepEqual(application.heard[0]?.match(/(GET|POST) \/\d/g), ['GET /1', 'POST /2', 'GET /3']);
    assert.equal(rig.ended.length, 3);
  });

  test('too many pipelined end the connection', async () => {
    application.answer = '';
    const answer = await say(rig.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(150));
    assert.match(answer, /ECONNRESET|^$/);
    assert.ok((application.heard[0] ?? '').split('GET /').length - 1 <= 1, 'one was asked at most');
  });
});

describe('answers', () => {
  test('as the application said it: names, repeated fields, reason', async () => {
    application.answer =
      'HTTP/1.1 299 As You Like\r\nX-b: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX-B: 2\r\nContent-Length: 2\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\r\nok';
    const answer = await say(rig.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    assert.match(answer, /^HTTP\/1\.1 299 As You Like\r\nX-b: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nX-B: 2\r\nContent-Length: 2\r\n/);
    assert.doesNotMatch(answer, /X-Mine/);
  });

  test('chunks and trailers', async () => {
    application.answer = 'HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n';
    const answer = await say(rig.port, 'GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n');
    assert.match(answer, /Transfer-Encoding: chunked\r\n(?:.*\r\n)*\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n$/i);
    assert.match(application.heard[0] ?? '', /te: trailers/);
  });

  for (const [what, answer] of Object.entries({
    'by length': 'HTTP/1.1 200 OK\r\nTrailer: x\r\nContent-Length: 2\r\n\r\nok',
    'without a body': 'HTTP/1.1 204 No Content\r\nTrailer: x\r\n\r\n',
  }))
    test(`a Trailer of an answer ${what} is left out`, async () => {
      application.answer = answer;
      const heard = await say(rig.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      assert.match(heard, /^HTTP\/1\.1 20[04]/);
      assert.doesNotMatch(heard, /trailer/i);
    });

  test('HEAD keeps its length and has no body', async () => {
    application.answer = 'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n';
    const answer = await say(rig.port, 'HEAD / HTTP/1.1\r\nHost: a\r\n\r\nHEAD / HTTP/1.1\r\nHost: a\r\n\r\n');
    assert.equal(answer.split('Content-Length: 500').length - 1, 2);
  });

  for (const status of [204, 304]) {
    test(`${status} has no body`, async () => {
      application.answer = `HTTP/1.1 ${status} X\r\n\r\n`;
      const answer = await say(rig.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n');
      assert.equal(answer.split(`HTTP/1.1 ${status}`).length - 1, 2);
    });
  }

  test('an application that ends its connection ends the caller’s', async () => {
    application.answer = 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok';
    const answer = await say(rig.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', { quietMs: 5_000 });
    assert.match(answer, /connection: close/i);
  });

  test('also while nothing is asked', async () => {
    const socket = connect({ host: '127.0.0.1', port: rig.port });
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await once(socket, 'data');
    application.sockets.at(-1)?.end();
    await once(socket, 'end');
    socket.destroy();
  });

  for (const [what, answer] of Object.entries({
    'both framings': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'no HTTP': 'SSH-2.0-OpenSSH_9\r\n',
    'a bare CR': 'HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok',
    'a switch nobody asked for': 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n',
  })) {
    test(`${what} in an answer: 502`, async () => {
      application.answer = answer;
      assert.equal(statusOf(await say(rig.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')), 502);
      assert.equal(rig.ended[0]?.code, 'APPLICATION_FAILED');
    });
  }

  test('an answer that is broken off is broken off for the caller', async () => {
    application.answer = 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok';
    const heard = say(rig.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', { quietMs: 5_000 });
    setTimeout(() => application.sockets.at(-1)?.destroy(), 100);
    assert.match(await heard, /ok<ECONNRESET>$/);
    assert.equal((await rig.end(1)).outcome, 'aborted');
  });

  test('what an application says unasked is nobody’s answer', async () => {
    const socket = connect({ host: '127.0.0.1', port: rig.port });
    socket.setEncoding('latin1');
    let heard = '';
    socket.on('data', (chunk: string) => {
      heard += chunk;
    });
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await once(socket, 'data');
    application.sockets.at(-1)?.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil');
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.doesNotMatch(heard, /evil/);
    socket.destroy();
  });

  test('nobody there: 503', async () => {
    await using nobody = await httpRig({ applicationPort: 1 });
    assert.equal(statusOf(await say(nobody.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')), 503);
    assert.equal(nobody.ended[0]?.code, 'DIAL_FAILED');
    assert.equal(nobody.ended[0]?.decision, 'failed');
  });
});

describe('100-continue', () => {
  test('the application’s 100 reaches the caller, whose body then goes on', async () => {
    application.answer = 'HTTP/1.1 100 Continue\r\n\r\n';
    const socket = connect({ host: '127.0.0.1', port: rig.port });
    socket.setEncoding('latin1');
    socket.write('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n');
    const asked = await Promise.race([once(socket, 'data'), new Promise((resolve) => setTimeout(resolve, 300))]);
    assert.equal(asked, undefined, 'no 100 of ours before the application has said it');
    application.sockets.at(-1)?.write('HTTP/1.1 100 Continue\r\n\r\n');
    const [hundred] = await once(socket, 'data');
    assert.match(String(hundred), /^HTTP\/1\.1 100/);
    application.answer = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
    socket.write('1\r\na\r\n0\r\n\r\n');
    const [answer] = await once(socket, 'data');
    assert.match(String(answer), /200 OK/);
    socket.destroy();
  });

  test('another answer ends the connection: the body may not come', async () => {
    application.answer = 'HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n';
    const answer = say(rig.port, 'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n', { quietMs: 2_000 });
    await new Promise((resolve) => setTimeout(resolve, 100));
    application.sockets.at(-1)?.write(application.answer);
    assert.match(await answer, /413 No[\s\S]*connection: close/i);
  });

  test('a refusal of ours does so too', async () => {
    rig.judge = () => ({ allowed: false, status: 403, code: 'AUTHORIZATION_DENIED', reason: 'no', fields: [] });
    const answer = await say(rig.port, 'POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n');
    assert.match(answer, /^HTTP\/1\.1 403[\s\S]*connection: close[\s\S]*RBAC: access denied$/i);
    assert.equal(application.heard.length, 0);
  });
});

describe('verdicts', () => {
  test('refused ones reach nobody, and the next request on the connection is its own', async () => {
    rig.judge = (request) =>
      request.path.forward === '/secret'
        ? { allowed: false, status: 401, code: 'JWT_INVALID', reason: 'no', fields: [['www-authenticate', 'Bearer']] }
        : pass;
    const answer = await say(
      rig.port,
      'POST /secret HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /open HTTP/1.1\r\nHost: a\r\n\r\n',
    );
    assert.match(answer, /^HTTP\/1\.1 401 [\s\S]*www-authenticate: Bearer[\s\S]*HTTP\/1\.1 200 OK/);
    assert.doesNotMatch(application.heard.join(), /secret|abc/);
    assert.deepEqual(
      rig.ended.map(({ decision, status }) => [decision, status]),
      [
        ['refused', 401],
        ['allowed', 200],
      ],
    );
  });

  test('fields that are taken away and added', async () => {
    rig.judge = () => ({ allowed: true, remove: ['authorization', 'x-claim'], add: [['x-claim', 'ours']], query: '?a' });
    await say(rig.port, 'GET /?a&token=b HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nX-Claim: forged\r\n\r\n');
    assert.match(application.heard[0] ?? '', /^GET \/\?a HTTP/);
    assert.match(application.heard[0] ?? '', /x-claim: ours/);
    assert.doesNotMatch(application.heard[0] ?? '', /forged|authorization/i);
  });
});

describe('WebSockets', () => {
  const upgrade =
    'GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nX-Forwarded-Client-Cert: By=x\r\n\r\n';
  const switched = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello';

  test('both ways, with what was said along with the heads', async () => {
    application.answer = switched;
    const answer = await say(rig.port, `${upgrade}early`);
    assert.match(answer, /^HTTP\/1\.1 101[\s\S]*sec-websocket-accept: x[\s\S]*\r\n\r\nhello/i);
    const heard = application.heard[0] ?? '';
    assert.match(heard, /connection: Upgrade\r\nupgrade: websocket\r\n\r\nearly$/i);
    assert.doesNotMatch(heard, /forwarded-client-cert/i);
    assert.equal((await rig.end(1)).outcome, 'upgraded');
  });

  test('an application that does not want: its answer, whole', async () => {
    application.answer = 'HTTP/1.1 426 No\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n3\r\nabc\r\n0\r\n\r\n';
    const answer = await say(rig.port, upgrade, { quietMs: 1_000 });
    assert.match(answer, /^HTTP\/1\.1 426 No\r\nX-A: 1\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc$/);
  });

  test('a refusal of ours', async () => {
    rig.judge = () => ({ allowed: false, status: 403, code: 'AUTHORIZATION_DENIED', reason: 'no', fields: [] });
    assert.match(await say(rig.port, upgrade, { quietMs: 1_000 }), /^HTTP\/1\.1 403 Forbidden\r\n/);
    assert.equal(application.heard.length, 0);
  });

  test('an answer that is broken off is no answer', async () => {
    application.answer = 'HTTP/1.1 403 No\r\nContent-Length: 100\r\n\r\nabc';
    const heard = say(rig.port, upgrade, { quietMs: 2_000 });
    setTimeout(() => application.sockets.at(-1)?.destroy(), 100);
    assert.equal(statusOf(await heard), 502);
    assert.equal((await rig.end(1)).code, 'APPLICATION_FAILED');
  });

  test('a switch to something else is no answer', async () => {
    application.answer = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n';
    assert.equal(statusOf(await say(rig.port, upgrade)), 502);
  });

  test('names, repeated fields and bytes of the head are as the application said them', async () => {
    application.answer =
      'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-B: \xe9\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n';
    assert.match(
      await say(rig.port, upgrade),
      /^HTTP\/1\.1 101 Switching Protocols\r\nX-B: \xe9\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n$/,
    );
  });

  test('with a body it is none', async () => {
    await say(rig.port, upgrade.replace('\r\n\r\n', '\r\nContent-Length: 3\r\n\r\nabc'));
    assert.doesNotMatch(application.heard[0] ?? '', /upgrade/i);
  });

  test('nobody there: 503', async () => {
    await using nobody = await httpRig({ applicationPort: 1 });
    assert.equal(statusOf(await say(nobody.port, upgrade)), 503);
    assert.equal((await nobody.end(1)).code, 'DIAL_FAILED');
  });
});
