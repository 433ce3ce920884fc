// Port 15020: who may see and do what, and that nobody keeps others from it.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, it } from 'node:test';
import manifest from '../../package.json' with { type: 'json' };
import { HandfastError } from '../../src/errors.ts';
import type { HttpListener } from '../../src/observe/listen-http.ts';
import { AppProbes } from '../../src/probes/app-probes.ts';
import { type StatusServerOptions, serveStatus } from '../../src/probes/status-server.ts';
import { readExposition } from '../support/exposition.ts';
import { handfast, Role } from '../support/handfast.ts';
import { eventually } from '../support/workers-pair.ts';

/** What comes from here was sent by somebody outside, and handed over by the inbound listener. */
const OUTSIDE = '127.0.0.6';
const PROBES = new AppProbes({ probers: new Map(), podIp: '', source: { v4: '127.0.0.6', v6: '::6' } });

let status: HttpListener | undefined;
afterEach(async () => {
  await status?.close();
  status = undefined;
});

async function serve(options: Partial<StatusServerOptions> = {}): Promise<number> {
  status = await serveStatus({
    port: 0,
    standing: { missing: () => [], warnings: () => ['look here'] },
    metrics: { text: () => 'x 1\n', audience: 'all' },
    probes: PROBES,
    onQuit: () => assert.fail('nobody may have asked to quit'),
    onError: (error) => assert.fail(error),
    ...options,
  });
  return status.port;
}

interface Said {
  readonly status: number;
  readonly text: string;
  readonly headers: Readonly<Record<string, unknown>>;
}

function ask(port: number, path: string, { method = 'GET', from = '127.0.0.1' }: { method?: string; from?: string } = {}): Promise<Said> {
  return new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', port, path, method, localAddress: from, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
      });
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text, headers: response.headers }));
    })
      .on('error', reject)
      .end();
  });
}

describe('port 15020', () => {
  it('metrics-by-both-names-with-the-formats-own-type', async () => {
    const port = await serve();
    for (const path of ['/metrics', '/stats/prometheus', '/metrics?format=text']) {
      const { status: code, text, headers } = await ask(port, path, { from: OUTSIDE });
      assert.deepEqual([code, text, headers['content-type']], [200, 'x 1\n', 'text/plain; version=0.0.4; charset=utf-8']);
    }
    assert.deepEqual(
      [(await ask(port, '/metrics', { method: 'HEAD' })).status, (await ask(port, '/metrics', { method: 'HEAD' })).text],
      [200, ''],
    );
  });

  it('local-metrics-are-for-the-pod-itself', async () => {
    const port = await serve({ metrics: { text: () => 'x 1\n', audience: 'local' } });
    assert.equal((await ask(port, '/metrics', { from: OUTSIDE })).status, 403);
    assert.equal((await ask(port, '/stats/prometheus', { from: OUTSIDE })).status, 403);
    assert.deepEqual((await ask(port, '/metrics')).text, 'x 1\n');
  });

  it('readiness-as-on-15021-with-reasons-for-the-pod-alone', async () => {
    let missing: readonly string[] = ['no certificate of spiffe://secret yet'];
    const port = await serve({ standing: { missing: () => missing, warnings: () => ['look here'] } });
    const both = async () => [await ask(port, '/healthz/ready'), await ask(port, '/healthz/ready', { from: OUTSIDE })];
    assert.deepEqual(
      (await both()).map((said) => [said.status, said.text]),
      [
        [503, 'no certificate of spiffe://secret yet\nwarning: look here\n'],
        [503, 'not ready\n'],
      ],
    );
    missing = [];
    assert.deepEqual(
      (await both()).map((said) => [said.status, said.text]),
      [
        [200, 'ready\nwarning: look here\n'],
        [200, 'ready\n'],
      ],
    );
  });

  it('what-is-not-there-and-what-may-not-be-done', async () => {
    const port = await serve();
    for (const path of ['/', '/debug/pprof', '/app-health/x/livez', '*', '//metrics'])
      assert.equal((await ask(port, path)).status, 404, path);
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']) {
      const { status: code, headers } = await ask(port, '/metrics', { method });
      assert.deepEqual([code, headers.allow], [405, 'GET, HEAD'], method);
    }
  });

  it('a-metric-that-cannot-be-told-ends-its-answer-and-nothing-else', async () => {
    const failures: string[] = [];
    const text = () => {
      throw new Error('no text');
    };
    const port = await serve({ metrics: { text, audience: 'all' }, onError: (error) => failures.push(error.message) });
    await assert.rejects(ask(port, '/metrics'));
    assert.deepEqual(failures, ['no text']);
    assert.equal((await ask(port, '/healthz/ready')).status, 200);
  });

  it('a-port-in-use-is-refused-by-name', async () => {
    const port = await serve();
    await assert.rejects(
      serveStatus({
        port,
        standing: { missing: () => [], warnings: () => [] },
        metrics: { text: () => '', audience: 'all' },
        probes: PROBES,
        onQuit: () => undefined,
        onError: () => undefined,
      }),
      (error) =>
        error instanceof HandfastError && error.code === 'CONFIG_INVALID' && /cannot listen for status: .*EADDRINUSE/.test(error.message),
    );
  });
});

describe('quitquitquit', () => {
  it('is-for-the-pod-itself-and-by-post', async () => {
    let quits = 0;
    const quit = Promise.withResolvers<void>();
    const port = await serve({
      onQuit: () => {
        quits++;
        quit.resolve();
      },
    });
    assert.equal((await ask(port, '/quitquitquit', { method: 'POST', from: OUTSIDE })).status, 403);
    assert.equal((await ask(port, '/quitquitquit', { from: OUTSIDE })).status, 403);
    const { status: code, headers } = await ask(port, '/quitquitquit');
    assert.deepEqual([code, headers.allow, quits], [405, 'POST', 0]);
    const said = await ask(port, '/quitquitquit', { method: 'POST' });
    assert.deepEqual([said.status, said.text], [200, 'OK\n']);
    await quit.promise;
    assert.equal(quits, 1);
  });
});

describe('bounds', () => {
  const closed = (socket: Socket) => (socket.closed ? Promise.resolve() : once(socket, 'close'));

  it('one-address-has-its-share-of-connections-and-others-have-theirs', async () => {
    const port = await serve();
    const open = async (localAddress: string) => {
      const socket = connect({ port, host: '127.0.0.1', localAddress }).on('error', () => undefined);
      await once(socket, 'connect');
      return socket.resume();
    };
    const sockets = await Promise.all(Array.from({ length: 64 }, () => open('127.0.0.3')));
    await closed(await open('127.0.0.3'));
    assert.equal((await ask(port, '/metrics', { from: '127.0.0.4' })).status, 200);
    for (const socket of sockets) socket.destroy();
    await Promise.all(sockets.map(closed));
    const again = () => ask(port, '/metrics', { from: '127.0.0.3' });
    await eventually(async () => (await again().catch(() => undefined))?.status === 200);
  });

  it('a-request-that-never-ends-is-ended', async () => {
    const port = await serve();
    const slow = connect(port, '127.0.0.1').on('error', () => undefined);
    slow.write('GET /metrics HTTP/1.1\r\nHost: x\r\n');
    const silent = connect(port, '127.0.0.1').on('error', () => undefined);
    await Promise.all([closed(slow.resume()), closed(silent.resume())]);
  });
});

describe('handfast proxy with a status port', () => {
  const POD = [
    '--pod-name',
    'httpbin',
    '--pod-namespace',
    'bar',
    '--inbound-port=0',
    '--outbound-port=0',
    '--tunnel-port=0',
    '--readiness-port=0',
    '--identity-port=0',
  ];
  const probers = (port: number) => JSON.stringify({ '/app-health/httpbin/livez': { tcpSocket: { port } } });

  it('serves-it-before-there-is-a-certificate-and-quits-when-asked', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'hf-status-'));
    const application = createServer((socket) => socket.on('error', () => undefined).resume()).listen(0, '127.0.0.1');
    await once(application, 'listening');
    const address = application.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    try {
      await writeFile(join(dir, 'token'), 'a.b.c');
      const place = ['--agent', `unix:${join(dir, 'agent.sock')}`, '--token-file', join(dir, 'token'), ...POD];
      await using proxy = new Role('proxy', ...place, '--status-port=0', '--app-probers', probers(port), '--pod-ip', '127.0.0.1');
      const { ports } = await proxy.said('sidecar listening');
      const { status: at } = ports as { status: number };
      assert.equal((await ask(at, '/app-health/httpbin/livez', { from: OUTSIDE })).status, 200);
      assert.match((await ask(at, '/healthz/ready')).text, /no certificate has arrived yet/);
      const { sum } = readExposition((await ask(at, '/metrics')).text);
      assert.equal(sum('handfast_ready'), 0);
      assert.equal(sum('handfast_build_info', { version: manifest.version, node: process.versions.node }), 1);
      const other = await handfast('proxy', ...place, `--status-port=${at}`);
      assert.equal(other.code, 2);
      assert.match(other.stderr, /cannot listen for status: /);
      const ended = once(proxy.child, 'close');
      assert.equal((await ask(at, '/quitquitquit', { method: 'POST' })).status, 200);
      assert.deepEqual(await ended, [0, null]);
    } finally {
      application.close();
      await rm(dir, { recursive: true });
    }
  });

  it('says-what-is-wrong-about-its-probes', async () => {
    const twice = await handfast('proxy', ...POD, '--app-probers', '{"/x": {}, "/y": {}}');
    assert.equal(twice.code, 2);
    assert.match(twice.stderr, /"\/x": is no path.*\n.*"\/y": is no path/);
    const nowhere = await handfast('proxy', ...POD, '--app-probers', probers(80));
    assert.match(nowhere.stderr, /--pod-ip ADDRESS is needed/);
    const name = await handfast('proxy', ...POD, '--app-probers', probers(80), '--pod-ip', 'here');
    assert.match(name.stderr, /--pod-ip: "here" is not an IP address/);
    const own = await handfast('proxy', ...POD, '--app-probers', probers(15020), '--pod-ip', '10.0.0.1');
    assert.match(own.stderr, /tcpSocket\.port 15020 is the sidecar's own/);
    assert.deepEqual([nowhere.code, name.code, own.code], [2, 2, 2]);
  });
});
