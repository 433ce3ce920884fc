// Who must not get in: asks a guarded port with a certificate (which must work), without one, and in plaintext (which must not).
// Run in a pod with Options as JSON; prints a Findings as JSON.

import { connect as connectPlain } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect, type TLSSocket } from 'node:tls';
import type { Credentials } from './certificates.ts';
import { clientTls, type Group } from './client-tls.ts';
import { openTunnel } from './tunnel.ts';

const TIMEOUT_MS = 3_000;

/** A port where a serving proxy takes mTLS, as seen from outside. */
export interface Guarded {
  readonly host: string;
  readonly port: number;
  /** HBONE: the destination to ask for. */
  readonly authority?: string;
}

export interface Findings {
  /** How the handshake with a certificate went: `TLSv1.3, TLS_AES_256_GCM_SHA384, X25519, no resumption`. */
  readonly handshake: string;
  /** Of the server's certificate: another one after a rotation. */
  readonly serial: string;
  /** Why the proxy's rounds may not count: a stranger got in. */
  readonly fault?: string;
}

interface Options {
  /** All the ports where a serving proxy takes mTLS. The first one is the one to describe. */
  readonly ports: readonly Guarded[];
  readonly credentials: Credentials;
  readonly group: Group;
}

/** What came of a request: the application's answer, a refusal (the connection closed without a byte), or neither in time. */
type Reply = 'answered' | 'refused' | 'silence';

function ask(opening: Promise<Duplex> | Duplex): Promise<Reply> {
  return new Promise((resolve) => {
    let opened: Duplex | undefined;
    const finish = (reply: Reply) => {
      clearTimeout(timer);
      opened?.destroy();
      resolve(reply);
    };
    const timer = setTimeout(() => finish('silence'), TIMEOUT_MS);
    const talk = (socket: Duplex) => {
      opened = socket;
      socket.once('data', () => finish('answered'));
      socket.on('error', () => undefined);
      socket.once('close', () => finish('refused'));
      // In TLS 1.3 a client believes itself connected before its certificate is judged, so the request is always sent.
      socket.write('GET / HTTP/1.1\r\nhost: bench\r\n\r\n');
    };
    Promise.resolve(opening).then(talk, () => finish('refused'));
  });
}

async function outsider({ host, port, authority }: Guarded): Promise<Findings> {
  const alpn = authority === undefined ? 'istio' : 'h2';
  const proving = { host, port, ...clientTls(credentials, { group, alpn }) };
  const anonymous = { host, port, ...clientTls(credentials, { group, alpn, anonymous: true }) };
  const through = (tls: typeof proving) => (authority === undefined ? connect(tls) : openTunnel({ host, port, authority, tls }));

  const first = await greet(connect(proving));
  const allowed = await ask(through(proving));
  // Without this twin, a dead port would pass for a guarded one.
  if (allowed !== 'answered') throw new Error(`a client with a good certificate got ${allowed === 'silence' ? 'no answer' : 'refused'}`);

  const strangers = {
    'a TLS client without a certificate': () => through(anonymous),
    'a plaintext client': () => connectPlain({ host, port }),
  };
  for (const [who, open] of Object.entries(strangers)) {
    const reply = await ask(open());
    if (reply === 'answered') return { ...first, fault: `${who} got the application's answer on port ${port}` };
    if (reply === 'silence') return { ...first, fault: `${who} was not refused on port ${port} within ${TIMEOUT_MS} ms` };
  }
  // In TLS 1.3 a server without tickets may hand out session IDs: what counts is whether it takes them back. No load ever offers one.
  const resumes = first.session !== undefined && (await greet(connect({ ...proving, session: first.session }))).resumed;
  return { handshake: `${first.handshake}, ${resumes ? 'would resume' : 'no resumption'}`, serial: first.serial };
}

async function greet(
  socket: TLSSocket,
): Promise<Pick<Findings, 'handshake' | 'serial'> & { session: Buffer | undefined; resumed: boolean }> {
  let session: Buffer | undefined;
  socket.on('session', (offered) => {
    session = offered;
  });
  const met = new Promise<{ handshake: string; serial: string }>((resolve, reject) => {
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed before the handshake was done')));
    socket.once('secureConnect', () => {
      const info = socket.getEphemeralKeyInfo();
      const name = info !== null && 'name' in info ? info.name : undefined;
      const handshake = [socket.getProtocol(), socket.getCipher().standardName, name ?? group].join(', ');
      resolve({ handshake, serial: String(socket.getPeerX509Certificate()?.serialNumber) });
    });
  });
  const { handshake, serial } = await met;
  const resumed = socket.isSessionReused();
  // A ticket comes after the handshake, so an answer (or the end) is waited for.
  await ask(socket);
  return { handshake, serial, session, resumed };
}

const { ports, credentials, group } = JSON.parse(process.argv[2] ?? '{}') as Options;
const [first, ...others] = await Promise.all(ports.map(outsider));
const fault = others.map((findings) => findings.fault).find((reason) => reason !== undefined);
process.stdout.write(JSON.stringify({ ...first, ...(fault === undefined ? {} : { fault }) }));
