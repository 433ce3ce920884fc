// Asks until the first byte has come back through a proxy, in plaintext or by mTLS. Run in a pod with Options as JSON: prints "ready" when it
// is about to ask, so that whoever waits can start the proxy then, and the moment of the byte as milliseconds since the epoch.

import { connect as connectPlain, type Socket } from 'node:net';
import { connect } from 'node:tls';
import type { Credentials } from './certificates.ts';
import { clientTls } from './client-tls.ts';
import { openTunnel } from './tunnel.ts';

export interface FirstByteOptions {
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
  /** With them by mTLS; without, in plaintext. */
  readonly credentials?: Credentials;
  /** HBONE: the destination that the tunnel leads to. */
  readonly authority?: string;
}

const RETRY_MS = 3;
const ATTEMPT_MS = 2_000;

const options = JSON.parse(process.argv[2] ?? '{}') as FirstByteOptions;
const { host, port, credentials } = options;
const secure = credentials === undefined ? undefined : clientTls(credentials, {});

async function open(): Promise<Socket> {
  if (secure === undefined) return connectPlain({ host, port, noDelay: true });
  if (options.authority !== undefined) return (await openTunnel({ host, port, authority: options.authority, tls: secure })) as Socket;
  return connect({ ...secure, host, port });
}

/** Resolves with when the byte came, or rejects. */
async function attempt(): Promise<number> {
  const socket = await open();
  try {
    return await new Promise<number>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('no answer in time')), ATTEMPT_MS);
      socket.once('data', () => {
        clearTimeout(timer);
        resolve(performance.timeOrigin + performance.now());
      });
      socket.on('error', reject);
      socket.once('close', () => {
        clearTimeout(timer);
        reject(new Error('closed without an answer'));
      });
      socket.write('GET / HTTP/1.1\r\nhost: bench\r\n\r\n');
    });
  } finally {
    socket.destroy();
  }
}

process.stdout.write('ready\n');
const deadline = Date.now() + options.timeoutMs;
for (;;) {
  try {
    process.stdout.write(`${await attempt()}\n`);
    process.exit(0);
  } catch (error) {
    if (Date.now() > deadline) throw error;
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
