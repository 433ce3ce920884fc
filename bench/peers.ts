// The products we are measured beside, each with the two configurations that do a sidecar's work: serving (mTLS to plain) and dialing
// (plain to mTLS). Settings that cost or save time are the same for all and for us: TLS 1.3 on X25519, whole chains, full handshakes only.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { BACKEND_PORT } from './backend.ts';
import { type Credentials, SERVER_NAME } from './certificates.ts';

/** Where a serving proxy accepts mTLS, and where a dialing one accepts the application's plaintext. */
export const servingPort = 15006;
export const dialingPort = 15001;

export interface Peer {
  readonly name: 'haproxy' | 'nginx';
  readonly version: string;
  /** Configuration texts. `to` is the serving proxy's address. */
  serving(credentials: Credentials): string;
  dialing(credentials: Credentials, to: string): string;
  command(configFile: string): string[];
}

/** The peers that are on PATH, and why the others are left out. */
export function findPeers(options: { wanted: ReadonlySet<string>; nginxModules: string }): {
  found: Peer[];
  skipped: { peer: string; reason: string }[];
} {
  const found: Peer[] = [];
  const skipped: { peer: string; reason: string }[] = [];
  const consider = (name: Peer['name'], look: () => Peer | string) => {
    const peer = options.wanted.has(name) ? look() : 'not asked for';
    if (typeof peer === 'string') skipped.push({ peer: name, reason: peer });
    else found.push(peer);
  };
  consider('haproxy', () => {
    const version = versionOf('haproxy', /HAProxy version (\S+)/);
    return version === undefined ? 'not on PATH (Debian: apt install haproxy)' : haproxy(version);
  });
  consider('nginx', () => {
    const version = versionOf('nginx', /nginx\/(\S+)/);
    if (version === undefined) return 'not on PATH (Debian: apt install nginx libnginx-mod-stream)';
    const streamModule = join(options.nginxModules, 'ngx_stream_module.so');
    if (!existsSync(streamModule))
      return `no ${streamModule} (Debian: apt install libnginx-mod-stream; or name its directory with --nginx-modules)`;
    return nginx(version, streamModule);
  });
  return { found, skipped };
}

function versionOf(command: string, pattern: RegExp): string | undefined {
  const { stdout, stderr } = spawnSync(command, ['-v'], { encoding: 'utf8' });
  return pattern.exec(`${stdout ?? ''}${stderr ?? ''}`)?.[1];
}

function haproxy(version: string): Peer {
  const common = `
global
  nbthread 1                  # one core each, as our process has
  maxconn 2000                # never the limit
  tune.ssl.cachesize 0        # no resumption from a session cache
defaults
  mode tcp                    # bytes, as our data path at L4; no HTTP parsing
  backlog 4096                # as our listeners
  timeout connect 10s
  timeout client 60s
  timeout server 60s
`;
  return {
    name: 'haproxy',
    version,
    command: (configFile) => ['haproxy', '-db', '-f', configFile],
    serving: ({ both, root }) => `${common}
listen mesh
  # crt: whole chain and key. verify required: nobody without a certificate. no-tls-tickets: full handshakes only.
  bind 0.0.0.0:${servingPort} ssl crt ${both} ca-file ${root} verify required alpn istio ssl-min-ver TLSv1.3 curves X25519 no-tls-tickets
  server application 127.0.0.1:${BACKEND_PORT}
`,
    dialing: ({ both, root }, to) => `${common}
listen application
  bind 127.0.0.1:${dialingPort}
  # crt: the client's certificate. verify, verifyhost: the server must be the one we mean. no-ssl-reuse, no-tls-tickets: full handshakes only.
  server mesh ${to}:${servingPort} ssl crt ${both} ca-file ${root} verify required verifyhost ${SERVER_NAME} sni str(${SERVER_NAME}) alpn istio ssl-min-ver TLSv1.3 no-tls-tickets no-ssl-reuse
`,
  };
}

function nginx(version: string, streamModule: string): Peer {
  const stream = (server: string) => `
load_module ${streamModule};
user root;                              # as the other peers
worker_processes 1;                     # one core each, as our process has
daemon off;
pid nginx.pid;                          # below the prefix, which is the scratch directory
error_log stderr error;
events { worker_connections 4000; }     # never the limit
stream {
  server {${server}
  }
}
`;
  return {
    name: 'nginx',
    version,
    command: (configFile) => ['nginx', '-p', join(configFile, '..'), '-e', 'stderr', '-c', configFile],
    serving: ({ chain, key, root }) =>
      stream(`
    listen 0.0.0.0:${servingPort} ssl backlog=4096;    # backlog as our listeners
    ssl_certificate ${chain};           # whole chain
    ssl_certificate_key ${key};
    ssl_client_certificate ${root};
    ssl_verify_client on;               # nobody without a certificate
    ssl_verify_depth 2;                 # leaf, intermediate, root
    ssl_alpn istio;
    ssl_protocols TLSv1.3;
    ssl_ecdh_curve X25519;
    ssl_session_tickets off;            # full handshakes only
    ssl_session_cache off;
    proxy_pass 127.0.0.1:${BACKEND_PORT};`),
    dialing: ({ chain, key, root }, to) =>
      stream(`
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
  };
}
