// What every client of the bench says in its handshake: the same to all, so that all do the same work.

import { readFileSync } from 'node:fs';
import type { ConnectionOptions } from 'node:tls';
import { type Credentials, SERVER_NAME } from './certificates.ts';

/** The key exchange; each scenario holds everybody to one. */
export const groups = ['X25519', 'X25519MLKEM768'] as const;
export type Group = (typeof groups)[number];

/** TLS 1.3, one cipher suite, one group, and no session: every handshake is a full one. */
export function clientTls(credentials: Credentials, of: { group?: Group; alpn?: string; anonymous?: boolean }): ConnectionOptions {
  return {
    ca: readFileSync(credentials.root),
    ...(of.anonymous === true ? {} : { cert: readFileSync(credentials.chain), key: readFileSync(credentials.key) }),
    minVersion: 'TLSv1.3',
    // The only one that all of them can be held to.
    ciphers: 'TLS_AES_256_GCM_SHA384',
    ecdhCurve: of.group ?? 'X25519',
    ALPNProtocols: [of.alpn ?? 'istio'],
    servername: SERVER_NAME,
    // The chain is verified; who the server is, is the same for all and not what is measured.
    checkServerIdentity: () => undefined,
  };
}
