// Metrics against what really happened: between two sidecars, in one thread and in two.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { Ledger } from '../../src/observe/ledger.ts';
import { Metrics } from '../../src/observe/metrics.ts';
import { TrafficCounters } from '../../src/observe/metrics-traffic.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { noRevocations } from '../../src/spiffe/crl.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { type Exposition, readExposition } from '../support/exposition.ts';
import { TestCa } from '../support/pki.ts';
import { startTunnelledPair } from '../support/tunnelled-pair.ts';
import { closed, eventually, startWorkersPair } from '../support/workers-pair.ts';

const SLEEP = 'spiffe://cluster.local/ns/foo/sa/sleep';
const HTTPBIN = 'spiffe://cluster.local/ns/bar/sa/httpbin';
const OPENED = 'istio_tcp_connections_opened_total';
const CLOSED = 'istio_tcp_connections_closed_total';

const ca = await TestCa.create();
const identities = { client: await ca.identity(SLEEP), server: await ca.identity(HTTPBIN) };

/** Counts what comes in at one side, and reads it as a scraper would. */
function counting(identity: Identity): { traffic: TrafficCounters; read: () => Exposition; close: () => void } {
  let now = 0;
  const ledger = new Ledger({ log: { warn: () => undefined }, now: () => now });
  const traffic = new TrafficCounters(ledger);
  const metrics = new Metrics({
    traffic,
    ledger,
    identity: new Snapshot(identity),
    revocations: new Snapshot(noRevocations),
    missing: () => [],
    workers: 1,
    version: 'test',
    now: () => now,
  });
  const read = () => {
    now += 1_000;
    return readExposition(metrics.text());
  };
  return { traffic, read, close: () => metrics.close() };
}

const both = { reporter: 'destination', connection_security_policy: 'mutual_tls', source_principal: SLEEP, destination_principal: HTTPBIN };

describe('metrics of a real pair', () => {
  it('opened-closed-and-refused-on-both-sides', async () => {
    const [client, server] = [counting(identities.client), counting(identities.server)];
    await using pair = await startTunnelledPair({
      identities,
      client: { sightings: client.traffic },
      server: { sightings: server.traffic },
    });
    const sockets = await Promise.all(
      [1, 2, 3].map(async () => {
        const socket = pair.dial().on('error', () => undefined);
        socket.write('hello');
        await once(socket, 'data');
        return socket;
      }),
    );
    assert.equal(server.read().sum(OPENED, { ...both, destination_port: String(pair.application.endpoint.port) }), 3);
    assert.equal(server.read().sum('handfast_connections_open', { direction: 'inbound' }), 3);
    assert.equal(client.read().sum(OPENED, { ...both, reporter: 'source' }), 3);
    for (const socket of sockets) socket.end();
    await Promise.all([pair.client.settled(), pair.server.settled()]);
    assert.equal(server.read().sum(CLOSED, both), 3);
    assert.equal(client.read().sum(CLOSED, { reporter: 'source' }), 3);
    assert.equal(server.read().sum('handfast_connections_refused_total'), undefined);

    const plaintext = connect(pair.server.sidecar.ports.inbound, '127.0.0.1').on('error', () => undefined);
    pair.server.destination = pair.application.endpoint;
    plaintext.write('GET / HTTP/1.1\r\n\r\n');
    await closed(plaintext.resume());
    await pair.server.settled();
    assert.equal(server.read().sum('handfast_connections_refused_total', { code: 'PLAINTEXT_UNDER_STRICT', direction: 'inbound' }), 1);
    assert.equal(server.read().sum(OPENED), 3);

    pair.replace(pair.world({ mode: 'PERMISSIVE' }));
    const allowed = connect(pair.server.sidecar.ports.inbound, '127.0.0.1').on('error', () => undefined);
    allowed.write('GET / HTTP/1.1\r\n\r\n');
    await once(allowed, 'data');
    assert.equal(server.read().sum(OPENED, { connection_security_policy: 'none', source_principal: 'unknown' }), 1);
    assert.equal(server.read().sum('handfast_plaintext_connections_total', { direction: 'inbound', transport: 'plaintext' }), 1);
    pair.replace(pair.world({ mode: 'STRICT' }));
    await closed(allowed.resume());
    await pair.server.settled();
    assert.equal(server.read().sum(CLOSED, { response_flags: 'DENY', connection_security_policy: 'none' }), 1);
    assert.equal(server.read().sum('handfast_connections_open'), 0);
    client.close();
    server.close();
  });

  it('two-workers-are-one-sum', async () => {
    const server = counting(identities.server);
    await using pair = await startWorkersPair({ identities, server: { sightings: server.traffic } });
    const sockets = await Promise.all(Array.from({ length: 40 }, () => pair.open()));
    await eventually(() => server.read().sum(OPENED, both) === 40);
    for (const socket of sockets) socket.destroy();
    await eventually(() => server.read().sum(CLOSED, both) === 40);
    assert.deepEqual([...pair.server.recorded('inbound').keys()].sort(), [1, 2]);
    assert.equal(server.read().sum('handfast_connections_open'), 0);
    assert.deepEqual(pair.server.workers.missing(), []);
    server.close();
  });
});
