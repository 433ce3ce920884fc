// A client's HBONE tunnel: one CONNECT over HTTP/2 over mTLS.

import { connect } from 'node:http2';
import type { Duplex } from 'node:stream';
import type { ConnectionOptions } from 'node:tls';

/** Resolves with the tunnel when the server has said 200; rejects when it has refused in any way. Destroying it ends its session. */
export function openTunnel(to: { host: string; port: number; authority: string; tls: ConnectionOptions }): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    const session = connect(`https://${to.host}:${to.port}`, { ...to.tls, ALPNProtocols: ['h2'] });
    session.once('error', reject);
    session.once('close', () => reject(new Error('closed without an answer')));
    const stream = session.request({ ':method': 'CONNECT', ':authority': to.authority }, { endStream: false });
    stream.once('close', () => session.destroy());
    stream.once('error', reject);
    stream.once('response', (headers) => {
      if (headers[':status'] === 200) resolve(stream);
      else {
        reject(new Error(`CONNECT was answered with ${headers[':status']}`));
        session.destroy();
      }
    });
  });
}
