// nginx's stream module with one worker.

import { join } from 'node:path';
import { BACKEND_PORT } from '../backend.ts';
import { SERVER_NAME } from '../certificates.ts';
import { dialingPort, type Peer, servingPort } from './peer.ts';

export function nginx(of: { version: string; streamModule: string; withoutPq: string | undefined }): Peer {
  const stream = (server: string) => `
load_module ${of.streamModule};
user root;                              # as the other peers
worker_processes 1;                     # one core each, as our process has
daemon off;
pid nginx.pid;                          # below the prefix, which is the scratch directory
error_log stderr error;
events { worker_connections 22000; }    # never the limit
stream {
  server {${server}
  }
}
`;
  const command = (file: string) => ['nginx', '-p', join(file, '..'), '-e', 'stderr', '-c', file];
  return {
    name: 'nginx',
    version: of.version,
    ...(of.withoutPq === undefined ? {} : { withoutPq: of.withoutPq }),
    serving: ({ credentials: { chain, key, root }, configFile, group }) => ({
      command: command(configFile),
      config: stream(`
    listen 0.0.0.0:${servingPort} ssl backlog=4096;    # backlog as our listeners
    ssl_certificate ${chain};           # whole chain
    ssl_certificate_key ${key};
    ssl_client_certificate ${root};
    ssl_verify_client on;               # nobody without a certificate
    ssl_verify_depth 2;                 # leaf, intermediate, root
    ssl_alpn istio;
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve ${group};
    ssl_session_tickets off;            # full handshakes only
    ssl_session_cache off;
    proxy_pass 127.0.0.1:${BACKEND_PORT};`),
    }),
    dialing: ({ credentials: { chain, key, root }, configFile, to }) => ({
      command: command(configFile),
      config: stream(`
    listen 127.0.0.1:${dialingPort} backlog=4096;
    proxy_pass ${to}:${servingPort};
    proxy_ssl on;
    proxy_ssl_certificate ${chain};     # the client's certificate
    proxy_ssl_certificate_key ${key};
    proxy_ssl_trusted_certificate ${root};
    proxy_ssl_verify on;                # the server must be the one we mean
    proxy_ssl_verify_depth 2;
    proxy_ssl_name ${SERVER_NAME};
    proxy_ssl_server_name on;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_session_reuse off;        # full handshakes only`),
    }),
  };
}
