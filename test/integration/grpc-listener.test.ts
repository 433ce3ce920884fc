// Listeners that know who calls: real sockets, real processes, real TLS, and a gRPC server behind them.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, lstat, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it, mock } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { Client, credentials, Metadata, Server, ServerCredentials, type ServiceError, status } from '@grpc/grpc-js';
import { HandfastError } from '../../src/errors.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import { parseTrustBundle, trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { parseX509Svid } from '../../src/spiffe/x509-svid.ts';
import { Terminator } from '../../src/tls/terminate.ts';
import type { Refusal } from '../../src/wire/admission.ts';
import { callerKey, callerOf, rememberedCallers } from '../../src/wire/caller.ts';
import { newServer } from '../../src/wire/grpc.ts';
import { type GrpcListener, listenTls, listenUnix } from '../../src/wire/grpc-listener.ts';
import { TestCa } from '../support/pki.ts';
import { uncovered } from '../support/uncovered.ts';
import { UnixPeer } from '../support/unix-peer.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PATH = '/test.Who/Ami';
const echo = (value: Buffer) => value;

let dir: string;
let stops: (() => Promise<void>)[];
let refusals: Refusal[];
const path = () => join(dir, 's');

beforeEach(async () => {
  dir = await mkdtemp('/tmp/hf-listen-');
  await chmod(dir, 0o755);
  stops = [];
  refusals = [];
});

afterEach(async () => {
  for (const stop of stops.reverse()) await stop();
  await rm(dir, { recursive: true });
  assert.equal(rememberedCallers(), 0, 'no caller is remembered longer than its connection');
});

/** Answers with its own name, and the caller as the server knows it. */
function whoServer(name = '', server = new Server()): Server {
  server.addService(
    {
      ami: {
        path: PATH,
        requestStream: false,
        responseStream: false,
        requestSerialize: echo,
        requestDeserialize: echo,
        responseSerialize: echo,
        responseDeserialize: echo,
      },
    },
    {
      ami: (call: { getPeer(): string }, done: (error: null, value: Buffer) => void) => {
        const caller = callerOf(call);
        done(null, Buffer.from(`${name}${caller === undefined ? 'nobody' : callerKey(caller)}`));
      },
    },
  );
  stops.push(async () => {
    server.forceShutdown();
    await turnUntil(() => rememberedCallers() === 0);
  });
  return server;
}

async function turnUntil(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

const onRefused = (refusal: Refusal) => void refusals.push(refusal);

async function unix(change: Partial<Parameters<typeof listenUnix>[0]> = {}): Promise<GrpcListener> {
  const listener = await listenUnix({ server: whoServer(), path: path(), mode: 0o666, takeOver: false, onRefused, ...change });
  stops.push(() => listener.close());
  return listener;
}

function whoAmI(address: string, metadata = new Metadata(), channel = credentials.createInsecure()): Promise<string> {
  const client = new Client(address, channel, { 'grpc.use_local_subchannel_pool': 1, 'grpc.ssl_target_name_override': 'server' });
  return new Promise<string>((resolve, reject) => {
    client.makeUnaryRequest(PATH, echo, echo, Buffer.alloc(0), metadata, { deadline: Date.now() + 10_000 }, (error, value) => {
      client.close();
      if (error === null) resolve(String(value));
      else reject(error);
    });
  });
}

describe('a unix socket', () => {
  it('a-handler-knows-its-caller', async () => {
    await unix();
    assert.match(await whoAmI(`unix:${path()}`), new RegExp(`^uid ${process.getuid?.()} in network namespace \\d+$`));
  });

  it('a-handler-of-a-connection-that-came-another-way-knows-nobody', async () => {
    const server = whoServer();
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      ),
    );
    assert.equal(await whoAmI(`127.0.0.1:${port}`), 'nobody');
  });

  it('metadata-cannot-name-a-caller', async () => {
    const server = whoServer();
    await unix({ server });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      ),
    );
    const forged = new Metadata();
    for (const key of ['x-forwarded-for', 'forwarded', 'x-remote-address', 'caller']) forged.set(key, 'caller:1');
    assert.equal(await whoAmI(`127.0.0.1:${port}`, forged), 'nobody');
    assert.match(await whoAmI(`unix:${path()}`, forged), /^uid /);
  });

  it('has-the-mode-it-was-given', async () => {
    await unix({ mode: 0o600 });
    assert.equal((await lstat(path())).mode & 0o777, 0o600);
    assert.deepEqual(await readdir(dir), ['s'], 'nothing else is left there');
  });

  it('a-caller-that-cannot-be-told-is-refused', async () => {
    await unix({
      credentials: () => {
        throw new HandfastError('WORKLOAD_UNKNOWN', 'it has ended');
      },
    });
    const error: ServiceError = await whoAmI(`unix:${path()}`).then(
      () => assert.fail('answered'),
      (refused) => refused,
    );
    assert.equal(error.code, status.UNAVAILABLE);
    assert.deepEqual(refusals[0], { code: 'WORKLOAD_UNKNOWN', reason: 'it has ended', from: path(), suppressed: 0 });
  });

  it('one-callers-connections-are-limited-and-anothers-are-not', { skip: process.getuid?.() === 0 ? false : 'needs root' }, async () => {
    let now = 0;
    await unix({ maxPerCaller: 2, now: () => now });
    await using first = new UnixPeer(path());
    await using second = new UnixPeer(path());
    await turnUntil(() => rememberedCallers() === 2);
    await assert.rejects(whoAmI(`unix:${path()}`));
    await assert.rejects(whoAmI(`unix:${path()}`));
    const reported = refusals.length;
    assert.equal(reported, 1, 'once a second, however many there are');
    assert.deepEqual([refusals[0]?.code, refusals[0]?.suppressed], ['RATE_LIMITED', 0]);
    await using other = new UnixPeer(path(), { uid: 12_345 });
    await turnUntil(() => rememberedCallers() === 3);
    now += 1_000;
    await assert.rejects(whoAmI(`unix:${path()}`));
    assert.ok((refusals[1]?.suppressed ?? 0) >= 1);
    await first.end();
    await turnUntil(() => rememberedCallers() === 2);
    assert.match(await whoAmI(`unix:${path()}`), /^uid 0/, 'one that ended makes room');
    assert.ok(second.pid > 0 && other.pid > 0);
  });

  it('all-callers-together-are-limited', async () => {
    await unix({ maxConnections: 1 });
    await using peer = new UnixPeer(path());
    await turnUntil(() => rememberedCallers() === 1);
    await assert.rejects(whoAmI(`unix:${path()}`));
    await peer.end();
    await turnUntil(() => rememberedCallers() === 0);
    assert.match(await whoAmI(`unix:${path()}`), /^uid/);
  });

  it('the-connections-of-a-caller-can-be-cut', async () => {
    const listener = await unix();
    await using peer = new UnixPeer(path());
    await turnUntil(() => rememberedCallers() === 1);
    assert.equal(
      listener.cut(({ kind }) => kind === 'tls'),
      0,
    );
    assert.equal(
      listener.cut((caller) => caller.kind === 'unix' && caller.peer.pid === peer.pid),
      1,
    );
    await turnUntil(() => rememberedCallers() === 0);
  });
});

describe('a request of one message', () => {
  const server = (requestDeadlineMs: number) => whoServer('', newServer({ requestDeadlineMs, maxMessageBytes: 100 }));

  async function begin(): Promise<{ session: ClientHttp2Session; call: ClientHttp2Stream }> {
    const session = connectHttp2('http://localhost', { createConnection: () => connect(path()) });
    session.on('error', () => undefined);
    const call = session.request({ ':method': 'POST', ':path': PATH, 'content-type': 'application/grpc', te: 'trailers' });
    call.on('error', () => undefined);
    call.write(Buffer.of(0, 0, 0, 0, 10, 1));
    return { session, call };
  }

  it('that-is-never-finished-ends-its-connection', async () => {
    await unix({ server: server(20) });
    const { session } = await begin();
    await once(session, 'close');
    assert.equal(rememberedCallers(), 0);
  });

  it('that-is-finished-in-time-is-answered', async () => {
    await unix({ server: server(10_000) });
    const { session, call } = await begin();
    const answered = once(call, 'response');
    call.end(Buffer.alloc(9));
    await answered;
    session.destroy();
  });
});

describe('the path of a unix socket', () => {
  it('a-stale-socket-is-replaced', async () => {
    const child = new UnixPeer('/nonexistent', {
      wrap: [process.execPath, '-e', `require('node:net').createServer().listen('${path()}', () => process.kill(process.pid, 'SIGKILL'))`],
    });
    await once(child.child, 'exit');
    assert.ok((await lstat(path())).isSocket());
    await unix();
    assert.match(await whoAmI(`unix:${path()}`), /^uid/);
  });

  it('a-live-socket-is-not-replaced-without-take-over', async () => {
    await unix({ server: whoServer('old ') });
    await assert.rejects(unix(), { code: 'CONFIG_INVALID', message: /served by another process/ });
    assert.match(await whoAmI(`unix:${path()}`), /^old /);
    assert.deepEqual(await readdir(dir), ['s']);
  });

  for (const takeOver of [false, true]) {
    it(`another-kind-of-file-is-refused: takeOver ${takeOver}`, async () => {
      await writeFile(path(), 'precious');
      await assert.rejects(unix({ takeOver }), { code: 'CONFIG_INVALID', message: /is no socket/ });
      await rm(path());
      await symlink('/etc/passwd', path());
      await assert.rejects(unix({ takeOver }), { code: 'CONFIG_INVALID' });
    });
  }

  it('one-that-is-too-long-is-refused-with-its-limit', async () => {
    await assert.rejects(unix({ path: join(dir, 'x'.repeat(100)) }), { code: 'CONFIG_INVALID', message: /107/ });
  });

  it('the-old-one-does-not-remove-the-path-of-its-successor', async () => {
    const old = await unix({ server: whoServer('old ') });
    await unix({ server: whoServer('new '), takeOver: true });
    await old.close();
    assert.match(await whoAmI(`unix:${path()}`), /^new /);
  });

  it('is-removed-by-the-one-it-belongs-to', async () => {
    const listener = await unix();
    await listener.close();
    await assert.rejects(lstat(path()), { code: 'ENOENT' });
  });

  it('open-connections-go-on-after-close-until-the-server-is-stopped', async () => {
    const listener = await unix();
    const client = new Client(`unix:${path()}`, credentials.createInsecure());
    const call = () =>
      new Promise<string>((resolve, reject) =>
        client.makeUnaryRequest(PATH, echo, echo, Buffer.alloc(0), (error, value) =>
          error === null ? resolve(String(value)) : reject(error),
        ),
      );
    await call();
    await listener.close();
    assert.match(await call(), /^uid/);
    client.close();
  });

  it('taken-over-again-and-again-under-connects-that-never-stop: none is refused', async () => {
    let running = true;
    let served = 0;
    const failures: string[] = [];
    const hammer = async () => {
      while (running) {
        const spoken = await speaks(path());
        if (spoken === undefined) served++;
        else failures.push(spoken);
      }
    };
    let current = await unix({ server: whoServer('0 ') });
    const hammers = [hammer(), hammer(), hammer(), hammer()];
    for (let i = 1; i <= 20; i++) {
      const next = await unix({ server: whoServer(`${i} `), takeOver: true });
      await current.close();
      current = next;
      const seen = served;
      await turnUntil(() => served > seen + 20);
    }
    running = false;
    await Promise.all(hammers);
    assert.deepEqual(failures, []);
    assert.match(await whoAmI(`unix:${path()}`), /^20 /);
  });
});

describe('processes that follow each other on one path', () => {
  it('the-new-one-takes-over-and-the-old-one-ends: no connect is refused', async () => {
    let running = true;
    let served = 0;
    const failures: string[] = [];
    const hammer = async () => {
      while (running) {
        const failure = await speaks(path());
        if (failure === undefined) served++;
        else failures.push(failure);
      }
    };
    let current = await otherProcess(path());
    const hammers = [hammer(), hammer(), hammer(), hammer()];
    for (let i = 0; i < 3; i++) {
      const next = await otherProcess(path());
      const exited = once(current, 'exit');
      current.kill('SIGTERM');
      assert.deepEqual(await exited, [0, null]);
      current = next;
    }
    running = false;
    await Promise.all(hammers);
    assert.deepEqual(failures, []);
    assert.ok(served > 0);
    const exited = once(current, 'exit');
    current.kill('SIGTERM');
    await exited;
    await assert.rejects(lstat(path()), { code: 'ENOENT' }, 'the last one cleans up');
  });
});

/** A process that serves the path, taking it over, until SIGTERM: then it closes as an agent does. */
async function otherProcess(at: string): Promise<ChildProcess> {
  const script = `
    import { Server } from '@grpc/grpc-js';
    import { listenUnix } from './src/wire/grpc-listener.ts';
    import { stopServer } from './src/wire/grpc.ts';
    const server = new Server();
    const listener = await listenUnix({ server, path: process.argv[1], mode: 0o666, takeOver: true, onRefused: () => undefined });
    process.once('SIGTERM', async () => { await listener.close(); await stopServer(server); });
    process.stdout.write('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, at], {
    cwd: ROOT,
    env: uncovered(),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  stops.push(async () => void child.kill('SIGKILL'));
  await once(child.stdout, 'data');
  return child;
}

/** Connects and waits for the server's SETTINGS: proof that somebody alive has it. Undefined, or what went wrong. */
function speaks(at: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket: Socket = connect(at);
    socket.once('data', () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once('error', (error) => resolve(error.message));
    socket.once('end', () => resolve('closed without a word'));
  });
}

describe('TCP with mutual TLS', () => {
  const CLIENT = 'spiffe://cluster.local/ns/foo/sa/client';
  let ca: TestCa;

  const bundlesOf = ({ rootPem, trustDomain }: TestCa) => trustBundles(parseTrustBundle(rootPem, trustDomain));

  async function tls({
    anonymous = false,
    ...change
  }: Partial<Parameters<typeof listenTls>[0]> & { anonymous?: boolean } = {}): Promise<GrpcListener> {
    ca = await TestCa.create();
    const tlsEnd = new Terminator({
      anonymous,
      handshakeTimeoutMs: 5_000,
      chooseAlpn: (offered) => offered.find((name) => name === 'h2'),
      revocations: () => noRevocations,
      now: Date.now,
    });
    const svid = parseX509Svid(await ca.svid('spiffe://cluster.local/ns/handfast/sa/server'));
    tlsEnd.replace({ svid, bundles: bundlesOf(ca) });
    const terminator = anonymous ? { terminate: (raw: Socket) => tlsEnd.terminateAny(raw) } : tlsEnd;
    const listener = await listenTls({ server: whoServer(), host: '127.0.0.1', port: 0, terminator, onRefused, ...change });
    stops.push(() => listener.close());
    return listener;
  }

  /** The server's name is not checked here: only what the server makes of the client is under test. */
  async function clientOf(issuer: TestCa, id = CLIENT) {
    const { chain, key } = await issuer.svid(id);
    return credentials.createSsl(Buffer.from(ca.rootPem), Buffer.from(key), Buffer.from(chain), { checkServerIdentity: () => undefined });
  }

  it('a-handler-knows-the-spiffe-id', async () => {
    const { port } = await tls();
    assert.equal(await whoAmI(`127.0.0.1:${port}`, undefined, await clientOf(ca)), CLIENT);
  });

  it('a-certificate-of-another-authority-is-refused-with-the-reason', async () => {
    const { port } = await tls();
    await assert.rejects(whoAmI(`127.0.0.1:${port}`, undefined, await clientOf(await TestCa.create())));
    assert.deepEqual([...new Set(refusals.map(({ code }) => code))], ['CHAIN_UNTRUSTED']);
    assert.match(refusals[0]?.from ?? '', /^127\.0\.0\.1:\d+$/);
  });

  it('no-certificate-is-refused', async () => {
    const { port } = await tls();
    const channel = credentials.createSsl(Buffer.from(ca.rootPem), null, null, { checkServerIdentity: () => undefined });
    await assert.rejects(whoAmI(`127.0.0.1:${port}`, undefined, channel));
    assert.deepEqual([...new Set(refusals.map(({ code }) => code))], ['NO_CLIENT_CERTIFICATE']);
  });

  it('where-a-certificate-is-optional-a-caller-without-one-is-an-address-and-one-with-a-bad-one-is-refused', async () => {
    const { port } = await tls({ anonymous: true });
    const without = credentials.createSsl(Buffer.from(ca.rootPem), null, null, { checkServerIdentity: () => undefined });
    assert.equal(await whoAmI(`127.0.0.1:${port}`, undefined, without), '127.0.0.1');
    assert.equal(await whoAmI(`127.0.0.1:${port}`, undefined, await clientOf(ca)), CLIENT);
    await assert.rejects(whoAmI(`127.0.0.1:${port}`, undefined, await clientOf(await TestCa.create())));
    assert.deepEqual([...new Set(refusals.map(({ code }) => code))], ['CHAIN_UNTRUSTED']);
  });

  it('plaintext-is-refused', async () => {
    const { port } = await tls();
    await assert.rejects(whoAmI(`127.0.0.1:${port}`));
    assert.equal(refusals[0]?.code, 'HANDSHAKE_FAILED');
  });

  it('a-client-that-did-not-agree-on-h2-is-refused', async () => {
    const { port } = await tls();
    const { chain, key } = await ca.svid(CLIENT);
    const socket = connectTls({
      host: '127.0.0.1',
      servername: 'server',
      port,
      cert: chain,
      key,
      ca: ca.rootPem,
      checkServerIdentity: () => undefined,
    });
    socket.on('error', () => undefined);
    socket.resume();
    await once(socket, 'close');
    assert.equal(refusals[0]?.code, 'ALPN_MISMATCH');
  });

  it('one-identitys-connections-are-limited-and-anothers-are-not', async () => {
    const { port } = await tls({ maxPerCaller: 1 });
    const held = await h2(port, CLIENT);
    await turnUntil(() => rememberedCallers() === 1);
    await assert.rejects(whoAmI(`127.0.0.1:${port}`, undefined, await clientOf(ca)));
    assert.deepEqual([refusals[0]?.code, refusals[0]?.from], ['RATE_LIMITED', CLIENT]);
    const other = 'spiffe://cluster.local/ns/foo/sa/other';
    assert.equal(await whoAmI(`127.0.0.1:${port}`, undefined, await clientOf(ca, other)), other);
    held.destroy();
  });

  for (const limit of ['maxHandshakes', 'maxHandshakesPerAddress']) {
    it(`a-silent-handshake-goes-for-one-that-is-meant: ${limit}`, async () => {
      const listener = await tls({ [limit]: 1, heldMs: 0 });
      const silent = connect(listener.port, '127.0.0.1').on('error', () => undefined);
      silent.resume();
      await once(silent, 'connect');
      const ended = once(silent, 'close');
      assert.equal(await whoAmI(`127.0.0.1:${listener.port}`, undefined, await clientOf(ca)), CLIENT);
      await ended;
      assert.match(refusals[0]?.reason ?? '', /too many handshakes/);
    });
  }

  it('a-silent-handshake-of-another-address-stays', async () => {
    const listener = await tls({ maxHandshakesPerAddress: 1 });
    const silent = connect({ port: listener.port, host: '127.0.0.1', localAddress: '127.0.0.2' });
    await once(silent, 'connect');
    assert.equal(await whoAmI(`127.0.0.1:${listener.port}`, undefined, await clientOf(ca)), CLIENT);
    assert.equal(refusals.length, 0);
    silent.destroy();
    await turnUntil(() => refusals.length === 1);
  });

  it('a-connection-ends-with-its-certificate', async () => {
    const beforehand = Date.now();
    let clock = beforehand;
    const { port } = await tls({ wallClock: () => clock });
    // Its certificate has an hour; the timer is asked again whenever it goes off, and here that is at once.
    mock.timers.enable({ apis: ['setTimeout'] });
    try {
      const { chain, key } = await ca.svid(CLIENT);
      const options = {
        host: '127.0.0.1',
        port,
        cert: chain,
        key,
        ca: ca.rootPem,
        ALPNProtocols: ['h2'],
        checkServerIdentity: () => undefined,
      };
      const socket = connectTls(options).on('error', () => undefined);
      await once(socket, 'data');
      const closed = once(socket, 'close');
      mock.timers.tick(600_000);
      await turnUntil(() => true);
      assert.equal(socket.destroyed, false);
      clock = beforehand + 10 * 365 * 86_400_000;
      mock.timers.tick(600_000);
      await closed;
      assert.equal(rememberedCallers(), 0);
    } finally {
      mock.timers.reset();
    }
  });

  it('one-that-was-revoked-between-handshake-and-admission-is-refused', async () => {
    let revoked = true;
    const { port } = await tls({
      judge: () => {
        if (revoked) throw new HandfastError('CERTIFICATE_REVOKED', 'since then');
      },
    });
    await assert.rejects(whoAmI(`127.0.0.1:${port}`, undefined, await clientOf(ca)));
    assert.deepEqual([refusals[0]?.code, refusals[0]?.from], ['CERTIFICATE_REVOKED', CLIENT]);
    revoked = false;
    assert.equal(await whoAmI(`127.0.0.1:${port}`, undefined, await clientOf(ca)), CLIENT);
  });

  it('callers-without-a-certificate-have-a-server-and-a-time-of-their-own', async () => {
    const { port } = await tls({ anonymous: true, anonymousService: { server: whoServer('stranger '), lifetimeMs: 50 } });
    const without = credentials.createSsl(Buffer.from(ca.rootPem), null, null, { checkServerIdentity: () => undefined });
    assert.equal(await whoAmI(`127.0.0.1:${port}`, undefined, without), 'stranger 127.0.0.1');
    assert.equal(await whoAmI(`127.0.0.1:${port}`, undefined, await clientOf(ca)), CLIENT);
    const known = await h2(port, CLIENT);
    const stranger = connectTls({ host: '127.0.0.1', port, ca: ca.rootPem, ALPNProtocols: ['h2'], checkServerIdentity: () => undefined });
    stranger.on('error', () => undefined).resume();
    await once(stranger, 'close');
    assert.equal(known.destroyed, false);
    known.destroy();
  });

  it('refusals-of-one-kind-are-counted-when-there-are-too-many-to-report', async () => {
    let now = 0;
    const { port } = await tls({ now: () => now });
    const garbage = async () => {
      const socket = connect(port, '127.0.0.1').on('error', () => undefined);
      socket.end('garbage');
      socket.resume();
      await once(socket, 'close');
    };
    for (let i = 0; i < 25; i++) await garbage();
    assert.equal(refusals.length, 20);
    now = 1_000;
    await garbage();
    assert.equal(refusals.at(-1)?.suppressed, 5);
  });

  it('a-client-that-just-ends-is-forgotten', async () => {
    const { port } = await tls();
    const socket = await h2(port, CLIENT);
    await turnUntil(() => rememberedCallers() === 1);
    socket.end();
    await turnUntil(() => rememberedCallers() === 0);
  });

  it('the-connections-of-an-identity-can-be-cut', async () => {
    const listener = await tls();
    const socket = await h2(listener.port, CLIENT);
    socket.on('error', () => undefined);
    await turnUntil(() => rememberedCallers() === 1);
    assert.equal(
      listener.cut((caller) => caller.kind === 'tls' && caller.peer.id.uri === CLIENT),
      1,
    );
    await once(socket, 'close');
  });

  it('close-ends-handshakes-under-way', async () => {
    const listener = await tls();
    const silent = connect(listener.port, '127.0.0.1').on('error', () => undefined);
    silent.resume();
    await once(silent, 'connect');
    await new Promise((resolve) => setImmediate(resolve));
    await listener.close();
    await once(silent, 'close');
    await assert.rejects(whoAmI(`127.0.0.1:${listener.port}`, undefined, await clientOf(ca)));
  });

  /** A TLS connection that speaks no HTTP/2 yet, but has a server's answer. */
  async function h2(port: number, id: string) {
    const { chain, key } = await ca.svid(id);
    const socket = connectTls({
      host: '127.0.0.1',
      port,
      cert: chain,
      key,
      ca: ca.rootPem,
      ALPNProtocols: ['h2'],
      checkServerIdentity: () => undefined,
    });
    await once(socket, 'data');
    return socket;
  }
});
