// Who must not get in: asks a guarded port with a certificate (which must work), without one, and in plaintext (which must not).
// Run in a pod: `outsider.ts '{"host", "port", "credentials"}'`; prints a Findings as JSON.

import { readFileSync } from 'node:fs';
import { connect as connectPlain, type Socket } from 'node:net';
import { connect } from 'node:tls';
import { type Credentials, SERVER_NAME } from './certificates.ts';

const TIMEOUT_MS = 3_000;

export interface Findings {
  /** How the handshake with a certificate went: `TLSv1.3, TLS_AES_256_GCM_SHA384, X25519, no resumption`. */
  readonly handshake: string;
  /** Why the proxy's rounds may not count: a stranger got in, or handshakes are not full ones. */
  readonly fault?: string;
}

/** What came of a request: the application's answer, a refusal (the connection closed without a byte), or neither in time. */
type Reply = 'answered' | 'refused' | 'silence';

function ask(socket: Socket): Promise<Reply> {
  return new Promise((resolve) => {
    const finish = (reply: Reply) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(reply);
    };
    const timer = setTimeout(() => finish('silence'), TIMEOUT_MS);
    socket.once('data', () => finish('answered'));
    socket.on('error', () => undefined);
    socket.once('close', () => finish('refused'));
    // In TLS 1.3 a client believes itself connected before its certificate is judged, so the request is always sent.
    socket.write('GET / HTTP/1.1\r\nhost: bench\r\n\r\n');
  });
}

async function outsider(to: { host: string; port: number; credentials: Credentials }): Promise<Findings> {
  const { host, port, credentials } = to;
  const tls = { host, port, ca: readFileSync(credentials.root), servername: SERVER_NAME, ALPNProtocols: ['istio'], ecdhCurve: 'X25519' };
  const trusting = { ...tls, checkServerIdentity: () => undefined };

  const proving = { ...trusting, cert: readFileSync(credentials.chain), key: readFileSync(credentials.key) };

  const proven = connect(proving);
  let handshake = '';
  let session: Buffer | undefined;
  proven.once('secureConnect', () => {
    const group = proven.getEphemeralKeyInfo();
    handshake = `${proven.getProtocol()}, ${proven.getCipher().standardName}, ${group !== null && 'name' in group ? group.name : 'group unknown'}`;
  });
  proven.on('session', (offered) => {
    session = offered;
  });
  const allowed = await ask(proven);
  // Without this twin, a dead port would pass for a guarded one.
  if (allowed !== 'answered') throw new Error(`a client with a good certificate got ${allowed === 'silence' ? 'no answer' : 'refused'}`);

  // In TLS 1.3 a server without tickets hands out session IDs instead: what counts is whether it takes them back.
  if (session !== undefined) {
    const returning = connect({ ...proving, session });
    let resumed = false;
    returning.once('secureConnect', () => {
      resumed = returning.isSessionReused();
    });
    await ask(returning);
    if (resumed) return { handshake, fault: 'it resumes sessions, where only full handshakes are compared' };
  }

  const strangers = {
    'a TLS client without a certificate': () => connect(trusting),
    'a plaintext client': () => connectPlain({ host, port }),
  };
  for (const [who, open] of Object.entries(strangers)) {
    const reply = await ask(open());
    if (reply === 'answered') return { handshake, fault: `${who} got the application's answer` };
    if (reply === 'silence') return { handshake, fault: `${who} was not refused within ${TIMEOUT_MS} ms` };
  }
  return { handshake: `${handshake}, no resumption` };
}

if (import.meta.main) process.stdout.write(JSON.stringify(await outsider(JSON.parse(process.argv[2] ?? '{}'))));
