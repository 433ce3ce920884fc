// ghostunnel, all of it in flags. Go's TLS 1.3 fixes the cipher suites and prefers AES-128 between its own two; one core by its affinity.

import { BACKEND_PORT } from '../backend.ts';
import { SERVER_NAME } from '../certificates.ts';
import { dialingPort, type Peer, type Place, servingPort } from './peer.ts';

export function ghostunnel(of: { version: string; binary: string }): Peer {
  const command = (mode: 'server' | 'client', { credentials: { chain, key, root } }: Place, more: readonly string[]) => ({
    command: [of.binary, mode, '--cert', chain, '--key', key, '--cacert', root, '--quiet', 'all', ...more],
  });
  return {
    name: 'ghostunnel',
    version: of.version,
    // allow-all: every client whose chain is good, as with the other peers.
    serving: (place) =>
      command('server', place, ['--listen', `0.0.0.0:${servingPort}`, '--target', `127.0.0.1:${BACKEND_PORT}`, '--allow-all']),
    dialing: (place) =>
      command('client', place, [
        '--listen',
        `127.0.0.1:${dialingPort}`,
        '--target',
        `${place.to}:${servingPort}`,
        '--override-server-name',
        SERVER_NAME,
      ]),
  };
}
