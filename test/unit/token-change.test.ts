// A token that is replaced opens a new stream at once: what the old one still says of its end must not take anything from the new one.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import { runDeltaClient } from '../../src/discovery/delta-client.ts';
import { Interests } from '../../src/discovery/interests.ts';
import { nothing, ReceiptBook } from '../../src/discovery/receipt-book.ts';
import { runReceiptClient } from '../../src/discovery/receipt-client.ts';
import { SecretSubscription } from '../../src/discovery/secret-subscription.ts';
import { typeUrls } from '../../src/discovery/type-urls.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { AggregatedDiscoveryServiceClient, AggregatedDiscoveryServiceService } from '../../src/wire/gen/envoy/service/discovery/v3/ads.ts';
import type { DeltaDiscoveryRequest } from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceService } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { ReportServiceService, type ReportSummary, type SecretReceipts } from '../../src/wire/gen/handfast/report/v1/report.ts';
import { bearerToken, channelOptions, newServer, stopServer } from '../../src/wire/grpc.ts';
import { listenUnix } from '../../src/wire/grpc-listener.ts';
import { openStream, unixTarget } from '../../src/wire/grpc-target.ts';
import { cleanups, recordingLog } from '../support/ads-rig.ts';
import { eventually } from '../support/workers-pair.ts';

/** What has come on each stream, by the token that it was opened with; and which of them have ended. */
class Heard<Request> {
  readonly streams = new Map<string, Request[]>();
  readonly over = new Set<string>();

  readonly follow = (call: ServerDuplexStream<Request, unknown>): void => {
    const token = bearerToken(call.metadata) ?? '';
    const requests: Request[] = [];
    this.streams.set(token, requests);
    call.on('data', (request: Request) => requests.push(request));
    call.on('cancelled', () => this.over.add(token));
    call.on('error', () => undefined);
  };
}

async function serve() {
  const dir = mkdtempSync(join(tmpdir(), 'handfast-token-'));
  cleanups.push(() => rmSync(dir, { recursive: true, force: true }));
  const [deltas, receipts] = [new Heard<DeltaDiscoveryRequest>(), new Heard<SecretReceipts>()];
  const server = newServer();
  const unused = (call: ServerDuplexStream<unknown, unknown>) => void call.end();
  server.addService(AggregatedDiscoveryServiceService, { deltaAggregatedResources: deltas.follow });
  server.addService(SecretDiscoveryServiceService, { streamSecrets: unused, deltaSecrets: deltas.follow });
  const confirm = (call: ServerDuplexStream<SecretReceipts, ReportSummary>) => receipts.follow(call);
  server.addService(ReportServiceService, { report: unused, record: unused, confirm });
  const path = join(dir, 'agent.sock');
  const listener = await listenUnix({ server, path, mode: 0o600, takeOver: false, onRefused: () => undefined });
  cleanups.push(async () => {
    await listener.close();
    await stopServer(server, 10);
  });
  return { target: unixTarget(`unix:${path}`), deltas, receipts };
}

/** Ends what runs until the signal aborts. */
function running(begin: (signal: AbortSignal) => Promise<unknown>): void {
  const stop = new AbortController();
  const ended = begin(stop.signal);
  cleanups.push(async () => {
    stop.abort();
    await ended;
  });
}

async function changeToken(token: Snapshot<string>, { streams, over }: Heard<unknown>): Promise<void> {
  await eventually(() => (streams.get('first')?.length ?? 0) > 0);
  token.replace('second');
  await eventually(() => (streams.get('second')?.length ?? 0) > 0 && over.has('first'));
}

test('receipts-go-on', { timeout: 20_000 }, async () => {
  const { target, receipts: heard } = await serve();
  const token = new Snapshot('first');
  const book = new ReceiptBook();
  const holds = (version: string) => book.take({ ...nothing({ reporter: 'a', pod: '' }), secret: 'foo/db', version, delivered: 1 });
  holds('1');
  running((signal) => runReceiptClient({ target, token, receipts: book, log: recordingLog().log, signal }));
  await changeToken(token, heard);
  holds('2');
  await eventually(() => heard.streams.get('second')?.at(-1)?.receipts.at(-1)?.version === '2');
});

test('secrets-are-asked-for', { timeout: 20_000 }, async () => {
  const { target, deltas } = await serve();
  const token = new Snapshot('first');
  running((signal) => {
    const secrets = new SecretSubscription({ target: () => target, nodeId: 'test', token, log: recordingLog().log, signal });
    secrets.hold('foo/a');
    cleanups.push(() => secrets.ended());
    return changeToken(token, deltas).then(() => secrets.hold('foo/b'));
  });
  await eventually(() => deltas.streams.get('second')?.at(-1)?.resourceNamesSubscribe.includes('secret:foo/b') === true);
});

test('addresses-are-asked-for', { timeout: 20_000 }, async () => {
  const { target, deltas } = await serve();
  const token = new Snapshot('first');
  const { log } = recordingLog();
  let interests: Interests | undefined;
  running((signal) => {
    interests = new Interests({ self: 'self', log, signal });
    return runDeltaClient({
      name: 'ads',
      open: (metadata) =>
        openStream(AggregatedDiscoveryServiceClient, { target, options: channelOptions }, (client) =>
          client.deltaAggregatedResources(metadata),
        ),
      nodeId: 'test',
      token,
      subscriptions: new Map([[typeUrls.address, interests]]),
      apply: () => undefined,
      log,
      signal,
    });
  });
  await changeToken(token, deltas);
  interests?.hold('10.0.0.1');
  await eventually(() => deltas.streams.get('second')?.at(-1)?.resourceNamesSubscribe.includes('/10.0.0.1') === true);
  assert.equal(deltas.streams.size, 2);
});
