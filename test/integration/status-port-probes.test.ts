// Probes in the application's stead: asked as kubelet would ask, and answered with what the application said.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  createServer as createHttp,
  type IncomingMessage,
  type RequestListener,
  request,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttp2, type Http2Server, type ServerHttp2Stream } from 'node:http2';
import { createServer as createHttps } from 'node:https';
import { createServer as createTcp, type Server as TcpServer } from 'node:net';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { HttpListener } from '../../src/observe/listen-http.ts';
import { parseAppProbers } from '../../src/probes/app-probers.ts';
import { AppProbes } from '../../src/probes/app-probes.ts';
import { serveStatus } from '../../src/probes/status-server.ts';
import { freePort } from '../support/free-port.ts';
import { loopbackCertificate } from '../support/json-server.ts';

const SOURCE = { v4: '127.0.0.6', v6: '::1' };
const LIVEZ = '/app-health/httpbin/livez';

let applications: (Server | TcpServer | Http2Server)[] = [];
let statuses: HttpListener[] = [];

beforeEach(() => {
  applications = [];
  statuses = [];
});
afterEach(async () => {
  await Promise.all(statuses.map((status) => status.close()));
  for (const application of applications) {
    if ('closeAllConnections' in application) application.closeAllConnections();
    application.close();
  }
});

async function listening(application: Server | TcpServer | Http2Server, host = '127.0.0.1'): Promise<number> {
  applications.push(application);
  application.listen(0, host);
  await once(application, 'listening');
  const address = application.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

const http = (listener: RequestListener) => listening(createHttp(listener));

/** A status port with these probers; resolves with its own. */
async function serve(probers: object, podIp = '127.0.0.1'): Promise<number> {
  const probes = new AppProbes({ probers: parseAppProbers(JSON.stringify(probers), new Set()), podIp, source: SOURCE });
  const status = await serveStatus({
    port: 0,
    standing: { missing: () => [], warnings: () => [] },
    metrics: { text: () => '', audience: 'all' },
    probes,
    onQuit: () => assert.fail('nobody asked to quit'),
    onError: (error) => assert.fail(error),
  });
  statuses.push(status);
  return status.port;
}

interface Said {
  readonly status: number;
  readonly text: string;
}

/** As kubelet: one connection for each probe. */
function kubelet(port: number, path = LIVEZ, headers: Record<string, string> = { 'user-agent': 'kube-probe/1.34' }): Promise<Said> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text }));
    })
      .on('error', reject)
      .end();
  });
}

/** One probe of one application. */
async function probe(action: object, { timeoutSeconds = 5 }: { timeoutSeconds?: number } = {}): Promise<Said> {
  return kubelet(await serve({ [LIVEZ]: { ...action, timeoutSeconds } }));
}

describe('http', () => {
  it('the-application-hears-what-kubelet-would-have-said', async () => {
    const heard: IncomingMessage[] = [];
    let from: string | undefined;
    const port = await http((asked, response) => {
      heard.push(asked);
      from = asked.socket.remoteAddress;
      response.end('fine');
    });
    assert.deepEqual(await probe({ httpGet: { path: '/live?deep=1', port } }), { status: 200, text: 'the application answered 200\n' });
    const [asked] = heard;
    assert.ok(asked);
    assert.deepEqual([asked.method, asked.url, asked.httpVersion], ['GET', '/live?deep=1', '1.1']);
    assert.deepEqual(asked.headers, { host: `127.0.0.1:${port}`, 'user-agent': 'kube-probe/1.34', accept: '*/*', connection: 'close' });
    assert.equal(from, '127.0.0.6');
  });

  it('headers-of-the-probe-are-sent-and-those-of-whoever-asks-are-not', async () => {
    let raw: readonly string[] = [];
    const port = await http((asked, response) => {
      raw = asked.rawHeaders;
      response.end();
    });
    const httpHeaders = [
      { name: 'host', value: 'shop.example' },
      { name: 'X-Twice', value: '1' },
      { name: 'X-Twice', value: '2' },
      { name: 'User-Agent', value: 'mine' },
      { name: 'Accept', value: '' },
      { name: 'Content-Length', value: '7' },
    ];
    const status = await serve({ [LIVEZ]: { httpGet: { port, httpHeaders } } });
    assert.equal((await kubelet(status, LIVEZ, { authorization: 'Bearer stolen', 'x-twice': '3', 'user-agent': 'curl' })).status, 200);
    assert.deepEqual(raw, ['Host', 'shop.example', 'User-Agent', 'mine', 'X-Twice', '1', 'X-Twice', '2', 'Connection', 'close']);
  });

  for (const [answered, told] of [
    [200, 200],
    [204, 204],
    [304, 200],
    [400, 400],
    [404, 404],
    [503, 503],
  ] as const)
    it(`the-applications-${answered}-is-kubelets-${told}`, async () => {
      const port = await http((_, response) => response.writeHead(answered).end());
      assert.equal((await probe({ httpGet: { port } })).status, told);
    });

  it('what-the-application-said-stays-with-it', async () => {
    const port = await http((_, response) => response.writeHead(500).end('database password is wrong: hunter2'));
    assert.deepEqual(await probe({ httpGet: { port } }), { status: 500, text: 'the application answered 500\n' });
  });

  it('a-body-without-end-is-read-as-far-as-kubelet-does', async () => {
    const port = await http((_, response) => {
      const more = () => {
        while (response.write('x'.repeat(4096)));
        response.once('drain', more);
      };
      more();
    });
    assert.equal((await probe({ httpGet: { port } })).status, 200);
  });

  it('half-an-answer-is-none', async () => {
    const port = await http((_, response) => {
      response.writeHead(200, { 'content-length': 10 });
      response.write('half', () => response.destroy());
    });
    assert.deepEqual(await probe({ httpGet: { port } }), { status: 500, text: `port ${port}: aborted\n` });
  });

  it('https-with-any-certificate', async () => {
    const port = await listening(createHttps(await loopbackCertificate(), (_, response) => response.writeHead(201).end()));
    assert.equal((await probe({ httpGet: { port, scheme: 'HTTPS' } })).status, 201);
    // The twin: plaintext to a TLS port is no answer.
    assert.equal((await probe({ httpGet: { port } })).status, 500);
  });

  it('nobody-listens', async () => {
    const port = await freePort();
    const { status, text } = await probe({ httpGet: { port } });
    assert.equal(status, 500);
    assert.match(text, new RegExp(`^port ${port}: connect ECONNREFUSED`));
  });

  it('no-answer-in-time', async () => {
    const port = await http(() => undefined);
    assert.deepEqual(await probe({ httpGet: { port } }, { timeoutSeconds: 1 }), {
      status: 500,
      text: `port ${port}: no answer within 1000 ms\n`,
    });
  });

  it('kubelet-hangs-up-and-so-does-the-probe', async () => {
    const asked = Promise.withResolvers<IncomingMessage>();
    const port = await http((message) => asked.resolve(message));
    const status = await serve({ [LIVEZ]: { httpGet: { port }, timeoutSeconds: 600 } });
    const probing = request({ host: '127.0.0.1', port: status, path: LIVEZ, agent: false }).on('error', () => undefined);
    probing.end();
    const { socket } = await asked.promise;
    const gone = once(socket, 'close');
    probing.destroy();
    await gone;
  });

  it('an-upgrade-is-no-health', async () => {
    const application = createHttp().on('upgrade', (_, socket) => {
      socket.on('error', () => undefined);
      socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n');
    });
    const httpHeaders = [
      { name: 'Connection', value: 'Upgrade' },
      { name: 'Upgrade', value: 'x' },
    ];
    const { status, text } = await probe({ httpGet: { port: await listening(application), httpHeaders } });
    assert.deepEqual([status, text], [500, 'the application answered 101\n']);
  });
});

describe('redirects', () => {
  /** Answers by path: a location, or a status. */
  const site = (pages: Readonly<Record<string, string | number>>, heard: string[] = []) =>
    http((asked, response) => {
      heard.push(`${asked.headers.host} ${asked.url}`);
      const page = pages[asked.url ?? ''] ?? 404;
      if (typeof page === 'number') response.writeHead(page).end();
      else response.writeHead(302, page === '' ? {} : { location: page }).end();
    });

  it('on-the-same-host-are-followed-with-the-probes-host', async () => {
    const heard: string[] = [];
    const port = await site({ '/': '/a?b=1', '/a?b=1': 'c', '/c': 503 }, heard);
    assert.equal((await probe({ httpGet: { port, httpHeaders: [{ name: 'Host', value: 'shop.example' }] } })).status, 503);
    assert.deepEqual(heard, ['shop.example /', 'shop.example /a?b=1', 'shop.example /c']);
  });

  it('one-that-names-the-host-is-asked-under-that-name', async () => {
    const heard: string[] = [];
    const pages: Record<string, string | number> = { '/b': 200 };
    const port = await site(pages, heard);
    pages['/'] = `http://127.0.0.1:${port}/b`;
    assert.equal((await probe({ httpGet: { port, httpHeaders: [{ name: 'Host', value: 'shop.example' }] } })).status, 200);
    assert.deepEqual(heard, ['shop.example /', `127.0.0.1:${port} /b`]);
  });

  it('to-another-host-are-a-success-and-not-followed', async () => {
    const heard: string[] = [];
    const other = await site({ '/': 503 }, heard);
    const port = await site({ '/': `http://localhost:${other}/` });
    const { status, text } = await probe({ httpGet: { port } });
    assert.deepEqual([status, text], [200, 'the application answered 302, and its redirection is not followed\n']);
    assert.deepEqual(heard, []);
  });

  it('to-a-port-that-no-probe-names-are-not-followed-and-to-one-that-does-are', async () => {
    const heard: string[] = [];
    const other = await site({ '/': 503 }, heard);
    const port = await site({ '/': `http://127.0.0.1:${other}/` });
    assert.equal((await probe({ httpGet: { port } })).status, 200);
    assert.deepEqual(heard, []);
    const status = await serve({ [LIVEZ]: { httpGet: { port } }, '/app-health/httpbin/readyz': { tcpSocket: { port: other } } });
    assert.equal((await kubelet(status)).status, 503);
    assert.equal(heard.length, 1);
  });

  it('nine-are-followed-and-ten-are-too-many', async () => {
    const pages = (count: number) =>
      Object.fromEntries(Array.from({ length: count }, (_, index) => [index === 0 ? '/' : `/${index}`, `/${index + 1}`]));
    assert.equal((await probe({ httpGet: { port: await site({ ...pages(9), '/9': 200 }) } })).status, 200);
    const { status, text } = await probe({ httpGet: { port: await site({ ...pages(10), '/10': 200 }) } });
    assert.equal(status, 500);
    assert.match(text, /stopped after 10 redirects/);
  });

  it('without-a-location-are-a-success-and-with-a-broken-one-are-not', async () => {
    assert.equal((await probe({ httpGet: { port: await site({ '/': '' }) } })).status, 200);
    assert.equal((await probe({ httpGet: { port: await site({ '/': 'http://[' }) } })).status, 500);
  });
});

describe('tcp', () => {
  it('connects-from-the-source-that-the-redirection-lets-by-and-closes', async () => {
    const application = createTcp();
    const port = await listening(application);
    const connected = once(application, 'connection');
    assert.deepEqual(await probe({ tcpSocket: { port } }), { status: 200, text: `port ${port} was connected to\n` });
    const [socket] = await connected;
    assert.equal(socket.remoteAddress, '127.0.0.6');
    socket.on('error', () => undefined).resume();
    if (!socket.closed) await once(socket, 'close');
  });

  it('nobody-listens', async () => {
    const { status, text } = await probe({ tcpSocket: { port: await freePort() } });
    assert.equal(status, 500);
    assert.match(text, /ECONNREFUSED/);
  });

  it('ipv6', async (context) => {
    const application = createTcp((socket) => socket.on('error', () => undefined).resume());
    const port = await listening(application, '::1').catch(() => undefined);
    if (port === undefined) return context.skip('no IPv6 here');
    assert.equal((await kubelet(await serve({ [LIVEZ]: { tcpSocket: { port } } }, '::1'))).status, 200);
  });
});

describe('grpc', () => {
  const status = (code: number) => Buffer.from([0, 0, 0, 0, 2, 8, code]);
  type Answering = (stream: ServerHttp2Stream, message: Buffer, headers: Record<string, unknown>) => void;

  const health = async (answering: Answering): Promise<number> => {
    const application = createHttp2();
    application.on('stream', (stream, headers) => {
      const chunks: Buffer[] = [];
      stream.on('error', () => undefined);
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.once('end', () => answering(stream, Buffer.concat(chunks), headers));
    });
    application.on('session', (session) => session.on('error', () => undefined));
    return listening(application);
  };

  const says = (body: Buffer, trailers: Record<string, string> = { 'grpc-status': '0' }): Answering => {
    return (stream) => {
      stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
      stream.once('wantTrailers', () => stream.sendTrailers(trailers));
      stream.end(body);
    };
  };

  it('asks-for-the-service-and-is-told-serving', async () => {
    let heard: Record<string, unknown> = {};
    let asked: Buffer | undefined;
    let from: string | undefined;
    const port = await health((stream, message, headers) => {
      heard = headers;
      asked = message;
      from = stream.session?.socket.remoteAddress;
      says(status(1))(stream, message, headers);
    });
    const answer = await probe({ grpc: { port, service: 'shop' } });
    assert.deepEqual(answer, { status: 200, text: 'the application answered SERVING\n' });
    assert.deepEqual(asked, Buffer.from([0, 0, 0, 0, 6, 10, 4, ...Buffer.from('shop')]));
    assert.equal(heard[':path'], '/grpc.health.v1.Health/Check');
    assert.equal(heard[':authority'], `127.0.0.1:${port}`);
    assert.equal(heard['user-agent'], 'kube-probe/1.34');
    assert.equal(heard['grpc-timeout'], '5000m');
    assert.equal(from, '127.0.0.6');
  });

  const cases: Readonly<Record<string, readonly [Answering, RegExp]>> = {
    'not-serving': [says(status(2)), /^the application answered NOT_SERVING$/m],
    'nothing-said-is-unknown': [says(Buffer.alloc(5)), /UNKNOWN/],
    unimplemented: [
      (stream) => stream.respond({ ':status': 200, 'content-type': 'application/grpc', 'grpc-status': '12' }, { endStream: true }),
      /does not implement grpc\.health\.v1\.Health/,
    ],
    'an-error-of-its-own': [
      says(Buffer.alloc(0), { 'grpc-status': '5', 'grpc-message': 'unknown service' }),
      /gRPC status 5: unknown service/,
    ],
    'no-status-at-all': [says(status(1), {}), /gRPC status missing/],
    'serving-with-an-error': [says(status(1), { 'grpc-status': '13' }), /gRPC status 13/],
    'http-alone': [(stream) => stream.respond({ ':status': 404 }, { endStream: true }), /HTTP status 404/],
    'compressed-though-nobody-asked': [says(Buffer.from([1, 0, 0, 0, 2, 8, 1])), /not one whole message/],
    'half-a-message': [says(Buffer.from([0, 0, 0, 0, 9, 8, 1])), /not one whole message/],
    'a-stream-that-is-reset': [(stream) => stream.close(2), /port \d+: /],
    'a-session-that-is-cut': [(stream) => stream.session?.destroy(), /./],
  };
  for (const [name, [answering, message]] of Object.entries(cases))
    it(name, async () => {
      const answer = await probe({ grpc: { port: await health(answering) } });
      assert.equal(answer.status, 500);
      assert.match(answer.text, message);
    });

  it('an-answer-without-end-is-refused', async () => {
    const port = await health((stream) => {
      stream.respond({ ':status': 200 });
      const more = () => {
        while (!stream.destroyed && stream.write(Buffer.alloc(4096)));
        stream.once('drain', more);
      };
      more();
    });
    assert.match((await probe({ grpc: { port } })).text, /longer than 10240 bytes/);
  });

  it('no-answer-in-time', async () => {
    const port = await health(() => undefined);
    assert.match((await probe({ grpc: { port } }, { timeoutSeconds: 1 })).text, /no answer within 1000 ms/);
  });

  it('what-is-no-http2', async () => {
    const port = await http((_, response) => response.end());
    assert.equal((await probe({ grpc: { port } })).status, 500);
  });
});

describe('who-may-ask-for-what', () => {
  it('a-path-that-is-not-a-probes-is-not-there', async () => {
    const port = await http((_, response) => response.end());
    const status = await serve({ [LIVEZ]: { httpGet: { port } } });
    for (const path of [
      '/app-health/httpbin/readyz',
      '/app-health/other/livez',
      '/app-health/httpbin/livez/',
      `/app-health/${port}`,
      '/__proto__',
    ])
      assert.equal((await kubelet(status, path)).status, 404, path);
    assert.equal((await kubelet(status, `${LIVEZ}?port=1`)).status, 200);
  });

  it('one-address-has-its-share-of-probes-under-way-and-others-have-theirs', async () => {
    const arrived = Promise.withResolvers<void>();
    let asked = 0;
    const held: ServerResponse[] = [];
    const port = await http((_, response) => {
      if (++asked > 32) response.end();
      else held.push(response);
      if (asked === 32) arrived.resolve();
    });
    const status = await serve({ [LIVEZ]: { httpGet: { port }, timeoutSeconds: 600 } });
    const probing = Array.from({ length: 32 }, () => kubelet(status));
    await arrived.promise;
    assert.deepEqual(await kubelet(status), { status: 503, text: 'too many probes at once\n' });
    const elsewhere = await new Promise<number | undefined>((resolve, reject) => {
      request({ host: '127.0.0.1', port: status, path: LIVEZ, localAddress: '127.0.0.2', agent: false }, (response) =>
        resolve(response.resume().statusCode),
      )
        .on('error', reject)
        .end();
    });
    assert.equal(elsewhere, 200);
    for (const response of held) response.end();
    assert.deepEqual(new Set((await Promise.all(probing)).map((said) => said.status)), new Set([200]));
    assert.equal((await kubelet(status)).status, 200);
  });
});
