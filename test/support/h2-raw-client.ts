// A client of a tunnel that holds a good certificate and obeys nobody.

import { once } from 'node:events';
import { connect } from 'node:tls';
import type { Identity } from '../../src/spiffe/identity.ts';
import { contextOptions } from '../../src/tls/context.ts';
import { PREFACE, RawPeer, settings } from './h2-frames.ts';

/** Connected, verified, and silent. */
export async function silentClient(identity: Identity, port: number, options: { acknowledge?: boolean } = {}): Promise<RawPeer> {
  const socket = connect({
    ...contextOptions(identity),
    port,
    host: '127.0.0.1',
    ALPNProtocols: ['h2'],
    checkServerIdentity: () => undefined,
  });
  socket.on('error', () => undefined);
  await once(socket, 'secureConnect');
  return new RawPeer(socket, options);
}

/** The same, its preface and SETTINGS said. */
export async function rawClient(
  identity: Identity,
  port: number,
  options: { settings?: readonly (readonly [id: number, value: number])[]; acknowledge?: boolean } = {},
): Promise<RawPeer> {
  const peer = await silentClient(identity, port, options);
  peer.send(PREFACE, settings(...(options.settings ?? [])));
  return peer;
}
