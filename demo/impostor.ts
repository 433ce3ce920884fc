// A server with a valid mesh certificate, of whichever service account its token proves, that answers mTLS on a port as a sidecar would.
// Usage: impostor.ts AGENT TOKEN_FILE HOST PORT

import { readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:tls';
import { pino } from 'pino';
import { IdentitySource, secretNames } from '../src/discovery/identity-source.ts';
import { runSdsClient } from '../src/discovery/sds-client.ts';
import { Snapshot } from '../src/snapshot.ts';
import type { Identity } from '../src/spiffe/identity.ts';
import { chooseAlpn } from '../src/tls/alpn.ts';
import { clientContext, contextOptions } from '../src/tls/context.ts';
import { unixTarget } from '../src/wire/grpc-target.ts';

const [agent = '', tokenFile = '', host = '', port = ''] = process.argv.slice(2);
const log = pino({ level: 'silent' });
const identity = new Snapshot<Identity>();
const source = new IdentitySource({ identity, prove: clientContext, log, now: Date.now });
const http = createHttpServer((_request, response) => response.end('{"impostor":true}\n'));

const unsubscribe = identity.subscribe((first) => {
  unsubscribe();
  const server = createServer({ ...contextOptions(first), requestCert: true, ALPNCallback: ({ protocols }) => chooseAlpn(protocols) });
  server.on('secureConnection', (socket) => http.emit('connection', socket));
  server.on('tlsClientError', () => undefined);
  server.listen(Number(port), host, () => process.stdout.write(`${first.svid.id.uri}\n`));
});

void runSdsClient({
  target: unixTarget(agent),
  nodeId: 'impostor',
  token: new Snapshot(readFileSync(tokenFile, 'utf8').trim()),
  resourceNames: [secretNames.svid, secretNames.bundle],
  accept: (secrets) => source.accept(secrets),
  log,
  signal: new AbortController().signal,
});
