// Requests through two sidecars, by tunnel, by direct mTLS and in plaintext: who called is told to the application and cannot be forged; each request is judged by itself; what is open is judged again.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { type Authorization, emptyMatch } from '../../src/policy/authorization.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { TestCa } from '../support/pki.ts';
import type { MeshSpec } from '../support/sidecar-harness.ts';
import { startTunnelledPair, type TunnelledPair } from '../support/tunnelled-pair.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';
const HTTPBIN = 'spiffe://cluster.local/ns/bar/sa/httpbin';

interface Answer {
  readonly status: number;
  readonly body: string;
  /** What the application heard, where it answered. */
  readonly heard: Record<string, string>;
}

let identities: { client: Identity; server: Identity };
let pair: TunnelledPair;
const open: Socket[] = [];
const agents: Agent[] = [];

const application = createServer((request: IncomingMessage, response: ServerResponse) => {
  if (request.url === '/stream') {
    response.write('begun');
    return;
  }
  if (request.url === '/echo') {
    request.pipe(response);
    return;
  }
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ url: request.url, ...request.headers }));
});
application.on('upgrade', (_request, socket: Socket) => {
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
  socket.on('error', () => undefined).pipe(socket);
});

before(async () => {
  const ca = await TestCa.create();
  identities = { client: await ca.identity(SLEEP), server: await ca.identity(HTTPBIN) };
  pair = await startTunnelledPair({ identities, onConnection: (socket) => application.emit('connection', socket) });
});

after(async () => {
  await pair[Symbol.asyncDispose]();
});

afterEach(async () => {
  for (const socket of open.splice(0)) socket.destroy();
  for (const agent of agents.splice(0)) agent.destroy();
  pair.server.revocations.replace(noRevocations);
  await Promise.all([pair.client.settled(), pair.server.settled()]);
});

const httpbin = (more: Partial<MeshSpec['workloads'][number]> = {}) => ({ httpPorts: [pair.application.endpoint.port], ...more });
const policy = (more: Partial<Authorization>): Authorization => ({
  name: 'p',
  namespace: 'bar',
  scope: 'NAMESPACE',
  action: 'ALLOW',
  dryRun: false,
  rules: [],
  ...more,
});

/** Each way is a way into the same pod. */
const ways: Readonly<Record<string, { proven: boolean; port: () => number; spec: () => Partial<MeshSpec['workloads'][number]> }>> = {
  'by tunnel': { proven: true, port: () => pair.client.sidecar.ports.outbound, spec: () => httpbin({ hbone: true }) },
  'by direct mTLS': { proven: true, port: () => pair.client.sidecar.ports.outbound, spec: () => httpbin({ hbone: false }) },
  'in plaintext': { proven: false, port: () => pair.server.sidecar.ports.inbound, spec: () => httpbin({ mode: 'PERMISSIVE' }) },
};

for (const [way, { proven, port, spec }] of Object.entries(ways)) {
  describe(way, () => {
    beforeEach(() => {
      pair.client.destination =
        way === 'by direct mTLS' ? { address: '127.0.0.1', port: pair.server.sidecar.ports.inbound } : pair.application.endpoint;
      pair.server.destination = pair.application.endpoint;
      pair.replace(pair.world(spec()));
    });

    const ask = (path: string, headers: Record<string, string | string[]> = {}, agent?: Agent): Promise<Answer> => {
      const used = agent ?? new Agent();
      agents.push(used);
      return new Promise((resolve, reject) => {
        const asked = httpRequest(
          { host: '127.0.0.1', port: port(), path, headers: { host: 'httpbin.bar', ...headers }, agent: used },
          (answer) => {
            let body = '';
            answer.setEncoding('utf8');
            answer.on('data', (chunk: string) => {
              body += chunk;
            });
            answer.on('end', () => resolve({ status: answer.statusCode ?? 0, body, heard: body.startsWith('{') ? JSON.parse(body) : {} }));
            answer.on('error', reject);
          },
        );
        asked.on('error', reject);
        asked.end();
      });
    };

    it(proven ? 'the application hears who called' : 'the application hears nothing of who called', async () => {
      const { status, heard } = await ask('/who', {
        'x-forwarded-client-cert': 'By=spiffe://evil;URI=spiffe://evil',
        x_forwarded_client_cert: 'evil',
      });
      assert.equal(status, 200);
      const hash = identities.client.svid.certificates[0]?.fingerprint256.replaceAll(':', '').toLowerCase();
      assert.equal(heard['x-forwarded-client-cert'], proven ? `By=${HTTPBIN};Hash=${hash};URI=${SLEEP}` : undefined);
      assert.equal(heard.x_forwarded_client_cert, undefined);
      assert.match(heard['x-request-id'] ?? '', /^[0-9a-f-]{36}$/);
    });

    it('each request has a record, and the connection one', async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      await ask('/one?secret=x', {}, agent);
      await ask('/two', {}, agent);
      agent.destroy();
      const connection = await pair.server.records.connection('inbound');
      const requests = pair.server.records.records.filter(({ msg }) => msg === 'request');
      assert.deepEqual(
        requests.map(({ method, path, host, status, decision, outcome, connection: of }) => ({
          method,
          path,
          host,
          status,
          decision,
          outcome,
          of,
        })),
        ['/one', '/two'].map((path) => ({
          method: 'GET',
          path,
          host: 'httpbin.bar',
          status: 200,
          decision: 'allowed',
          outcome: 'answered',
          of: connection.connection,
        })),
      );
      assert.deepEqual(requests[0]?.downstream, {
        address: (connection.downstream as { address: string }).address,
        ...(proven ? { spiffeId: SLEEP } : {}),
      });
      assert.equal(connection.decision, 'allowed');
      const sent = requests.reduce((sum, { bytesToApplication }) => sum + Number(bytesToApplication), 0);
      assert.equal(connection.bytesToApplication, sent);
      assert.ok(sent > 100);
      assert.doesNotMatch(JSON.stringify(pair.server.records.records), /secret/);
    });

    it('a body of 5 MB both ways, with backpressure', async () => {
      const body = Buffer.alloc(5_000_000, 'x');
      const answer = await fetchBody(port(), body);
      assert.ok(answer.equals(body));
    });

    it('an L4 policy that refuses is a 403, and the application hears nothing', async () => {
      const somebody = policy({ rules: [[[{ ...emptyMatch, principals: [{ kind: 'exact', value: 'cluster.local/ns/x/sa/y' }] }]]] });
      const before = pair.application.connections;
      pair.replace(pair.world(spec(), { authorizations: [somebody] }));
      const { status, body } = await ask('/');
      assert.deepEqual({ status, body }, { status: 403, body: 'RBAC: access denied' });
      assert.equal(pair.application.connections, before);
      const record = await pair.server.records.find(({ msg }) => msg === 'request');
      assert.equal(record.code, 'AUTHORIZATION_DENIED');
      assert.equal(record.decision, 'refused');
      // Its twin.
      pair.replace(pair.world(spec()));
      assert.equal((await ask('/')).status, 200);
    });

    it('the next request on an open connection is judged by the policy of then', async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      assert.equal((await ask('/', {}, agent)).status, 200);
      pair.replace(pair.world(spec(), { authorizations: [policy({ rules: [] })] }));
      assert.equal((await ask('/', {}, agent)).status, 403);
      pair.replace(pair.world(spec()));
      assert.equal((await ask('/', {}, agent)).status, 200);
      agent.destroy();
      await pair.server.records.connection('inbound');
      assert.equal(pair.server.records.records.filter(({ msg }) => msg === 'connection').length, 1);
    });

    it('an answer that is under way is cut when its request is not allowed any more', async () => {
      const socket = await begin(port(), '/stream');
      pair.replace(pair.world(spec(), { authorizations: [policy({ rules: [] })] }));
      await closed(socket);
      const connection = await pair.server.records.connection('inbound');
      assert.equal(connection.decision, 'cut');
      assert.equal(connection.code, 'AUTHORIZATION_DENIED');
      assert.equal((await pair.server.records.find(({ msg }) => msg === 'request')).outcome, 'aborted');
    });

    it('a WebSocket goes both ways, and is cut when it is not allowed any more', async () => {
      const socket = dial(port());
      socket.write('GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
      assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 101/);
      socket.write('hello');
      assert.equal(String((await once(socket, 'data'))[0]), 'hello');
      pair.replace(pair.world(spec(), { authorizations: [policy({ rules: [] })] }));
      await closed(socket);
      assert.equal((await pair.server.records.connection('inbound')).code, 'AUTHORIZATION_DENIED');
    });

    it('an answer that is under way stays where a change does not concern it', async () => {
      const socket = await begin(port(), '/stream');
      pair.replace(pair.world(spec(), { authorizations: [policy({ rules: [[[{ ...emptyMatch, notDestinationPorts: [1] }]]] })] }));
      await new Promise((resolve) => setTimeout(resolve, 100));
      assert.equal(socket.destroyed, false);
    });

    it('no policy any more: 503', async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      await ask('/', {}, agent);
      pair.server.mesh.replace({ ...pair.world(), policies: new Map() });
      assert.equal((await ask('/', {}, agent)).status, 503);
    });

    it('what cannot be read is refused', async () => {
      const socket = dial(port());
      socket.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n');
      assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 400/);
      const record = await pair.server.records.find(({ msg }) => msg === 'request');
      assert.equal(record.code, 'REQUEST_INVALID');
    });

    it('a caller that goes away leaves nothing open', async () => {
      const socket = await begin(port(), '/stream');
      assert.equal(pair.application.sockets.size, 1);
      socket.destroy();
      await pair.server.records.connection('inbound');
      while (pair.application.sockets.size > 0) await new Promise((resolve) => setTimeout(resolve, 5));
    });
  });
}

describe('a port that becomes HTTP', () => {
  it('drains what was opened before, since it could say of itself who calls', async () => {
    pair.client.destination = pair.application.endpoint;
    pair.server.destination = pair.application.endpoint;
    pair.replace(pair.world({ httpPorts: [] }));
    const socket = dial(pair.client.sidecar.ports.outbound);
    socket.write('GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: forged\r\n\r\n');
    assert.match(String((await once(socket, 'data'))[0]), /forged/);
    pair.replace(pair.world(httpbin()));
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
    await once(socket, 'end');
    socket.end();
    assert.equal((await pair.server.records.connection('inbound')).outcome, 'drained');
  });
});

function closed(socket: Socket): Promise<void> {
  return new Promise((resolve) => socket.once('close', () => resolve()));
}

function dial(port: number): Socket {
  const socket = connect({ host: '127.0.0.1', port });
  socket.on('error', () => undefined);
  open.push(socket);
  return socket;
}

async function begin(port: number, path: string): Promise<Socket> {
  const socket = dial(port);
  socket.write(`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`);
  assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 200/);
  return socket.resume();
}

function fetchBody(port: number, body: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const asked = httpRequest({ host: '127.0.0.1', port, path: '/echo', method: 'POST', agent: false }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () => resolve(Buffer.concat(chunks)));
      answer.on('error', reject);
    });
    asked.on('error', reject);
    asked.end(body);
  });
}
