// haproxy in TCP mode on one thread.

import { BACKEND_PORT } from '../backend.ts';
import { SERVER_NAME } from '../certificates.ts';
import { dialingPort, type Peer, servingPort } from './peer.ts';

const common = `
global
  nbthread 1                  # one core each, as our process has
  maxconn 11000               # never the limit; it reserves files for twice as many
  fd-hard-limit 65536
  tune.ssl.cachesize 0        # no resumption from a session cache
defaults
  mode tcp                    # bytes, as our data path at L4; no HTTP parsing
  backlog 4096                # as our listeners
  timeout connect 10s
  timeout client 10m
  timeout server 10m
`;

export function haproxy(of: { version: string; fileLimit: number; withoutPq: string | undefined }): Peer {
  const top = common.replace('maxconn 11000', `maxconn ${Math.min(11_000, Math.floor((of.fileLimit - 100) / 2))}`);
  const command = (file: string) => ['haproxy', '-db', '-f', file];
  return {
    name: 'haproxy',
    version: of.version,
    ...(of.withoutPq === undefined ? {} : { withoutPq: of.withoutPq }),
    serving: ({ credentials: { both, root }, configFile, group }) => ({
      command: command(configFile),
      config: `${top}
listen mesh
  # crt: whole chain and key. verify required: nobody without a certificate. no-tls-tickets: full handshakes only.
  bind 0.0.0.0:${servingPort} ssl crt ${both} ca-file ${root} verify required alpn istio ssl-min-ver TLSv1.3 curves ${group} ciphersuites TLS_AES_256_GCM_SHA384 no-tls-tickets
  server application 127.0.0.1:${BACKEND_PORT}
`,
    }),
    dialing: ({ credentials: { both, root }, configFile, to }) => ({
      command: command(configFile),
      config: `${top}
listen application
  bind 127.0.0.1:${dialingPort}
  # crt: the client's certificate. verify, verifyhost: the server must be the one we mean. no-ssl-reuse, no-tls-tickets: full handshakes only.
  server mesh ${to}:${servingPort} ssl crt ${both} ca-file ${root} verify required verifyhost ${SERVER_NAME} sni str(${SERVER_NAME}) alpn istio ssl-min-ver TLSv1.3 no-tls-tickets no-ssl-reuse
`,
    }),
  };
}
