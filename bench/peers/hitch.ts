// hitch: one worker, and only the serving side.

import { BACKEND_PORT } from '../backend.ts';
import { type Peer, servingPort } from './peer.ts';

export function hitch(of: { version: string; withoutPq: string | undefined }): Peer {
  return {
    name: 'hitch',
    version: of.version,
    ...(of.withoutPq === undefined ? {} : { withoutPq: of.withoutPq }),
    serving: ({ credentials: { both, root }, configFile, group }) => ({
      command: ['hitch', '--config', configFile],
      // It will not work as root.
      config: `
frontend = "[0.0.0.0]:${servingPort}"
backend = "[127.0.0.1]:${BACKEND_PORT}"
backlog = 4096
workers = 1
user = "nobody"
group = "nogroup"
pem-file = "${both}"
client-verify = required
client-verify-ca = "${root}"
tls-protos = TLSv1.3
ciphersuites = "TLS_AES_256_GCM_SHA384"
ecdh-curve = "${group}"
alpn-protos = "istio"
ocsp-dir = ""
`,
    }),
  };
}
