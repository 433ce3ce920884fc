// stunnel: a thread for each connection, held to one core by its affinity.

import { BACKEND_PORT } from '../backend.ts';
import { SERVER_NAME } from '../certificates.ts';
import { dialingPort, type Peer, type Place, servingPort } from './peer.ts';

function service({ credentials: { chain, key, root }, group }: Place, lines: readonly string[]): string {
  return `
foreground = yes
syslog = no
debug = err
pid =
[mesh]
cert = ${chain}
key = ${key}
CAfile = ${root}
verifyChain = yes
sslVersionMin = TLSv1.3
ciphersuites = TLS_AES_256_GCM_SHA384
curves = ${group}
# full handshakes only
options = NO_TICKET
sessionResume = no
TIMEOUTclose = 0
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
${lines.join('\n')}
`;
}

export function stunnel(of: { version: string; command: string; withoutPq: string | undefined }): Peer {
  const launch = (place: Place, lines: readonly string[]) => ({ command: [of.command, place.configFile], config: service(place, lines) });
  return {
    name: 'stunnel',
    version: of.version,
    ...(of.withoutPq === undefined ? {} : { withoutPq: of.withoutPq }),
    serving: (place) => launch(place, [`accept = 0.0.0.0:${servingPort}`, `connect = 127.0.0.1:${BACKEND_PORT}`, 'requireCert = yes']),
    dialing: (place) =>
      launch(place, [
        'client = yes',
        `accept = 127.0.0.1:${dialingPort}`,
        `connect = ${place.to}:${servingPort}`,
        `sni = ${SERVER_NAME}`,
        `checkHost = ${SERVER_NAME}`,
      ]),
  };
}
