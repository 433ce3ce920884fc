// TLS to a server outside the mesh, as a DestinationRule with SIMPLE or MUTUAL wants it: its roots, its names, its certificate, nothing of the mesh's.

import type { X509Certificate } from 'node:crypto';
import { isIP, type Socket } from 'node:net';
import { checkServerIdentity, connect, createSecureContext, getCACertificates, type SecureContext, type TLSSocket } from 'node:tls';
import { HandfastError, messageOf } from '../errors.ts';
import type { ClientTls } from '../policy/model.ts';
import { clientHandshake } from './client-handshake.ts';
import { handshakeError } from './handshake-error.ts';
import { readRuleFile } from './rule-file.ts';

export interface OutsideOptions {
  readonly tls: ClientTls;
  /** The name that is dialled: what the server must be called where the rule names nobody, and the SNI where it gives none. */
  readonly hostname: string;
  /** Where to, in words. */
  readonly destination: string;
  readonly handshakeTimeoutMs: number;
}

/** Takes a connected socket; on any refusal it is destroyed before a byte of the application's has left. Throws CONFIG_INVALID for a file that cannot be used. */
export async function originateOutside(raw: Socket, options: OutsideOptions): Promise<TLSSocket> {
  const { tls, destination, handshakeTimeoutMs } = options;
  // A reset while files are read must find a listener, and is seen again by the handshake.
  raw.on('error', () => undefined);
  const deadline = performance.now() + handshakeTimeoutMs;
  let secureContext: SecureContext;
  try {
    secureContext = await contextOf(tls, AbortSignal.timeout(handshakeTimeoutMs));
  } catch (error) {
    raw.destroy();
    throw error;
  }
  const serverName = tls.sni ?? options.hostname;
  const socket: TLSSocket = connect({
    socket: raw,
    secureContext,
    rejectUnauthorized: true,
    // An address is no SNI.
    ...(isIP(serverName) === 0 ? { servername: serverName } : {}),
    checkServerIdentity: (_name, certificate) => {
      if (tls.subjectAltNames.length === 0) return checkServerIdentity(serverName, certificate);
      const leaf = socket.getPeerX509Certificate();
      if (leaf !== undefined && namesOf(leaf).some((name) => tls.subjectAltNames.includes(name))) return undefined;
      return new HandfastError(
        'SECURE_NAMING_MISMATCH',
        `${destination} must be ${tls.subjectAltNames.join(' or ')} by ${tls.source}, but the server's certificate is for ${leaf?.subjectAltName ?? 'nobody'}`,
      );
    },
  });
  return clientHandshake(socket, raw, {
    destination,
    handshakeTimeoutMs: Math.max(1, Math.ceil(deadline - performance.now())),
    verified: () => socket,
    failure: (error) => outsideError(error, destination),
  });
}

function outsideError(error: unknown, destination: string): HandfastError {
  if (error instanceof Error && 'code' in error && error.code === 'ERR_TLS_CERT_ALTNAME_INVALID')
    return new HandfastError('SECURE_NAMING_MISMATCH', `${destination}: ${error.message}`, { cause: error });
  return handshakeError(error);
}

/** DNS names, URIs and addresses of a certificate. Node quotes an entry that could be read as two, which then equals nothing. */
function namesOf({ subjectAltName }: X509Certificate): string[] {
  return (subjectAltName ?? '').split(', ').map((entry) => entry.replace(/^(?:DNS|URI|IP Address):/, ''));
}

/** Files are small and read for each connection, so that a changed one holds from the next; what they mean to OpenSSL is kept while they stay the same. */
async function contextOf(tls: ClientTls, signal: AbortSignal): Promise<SecureContext> {
  const read = (path: string | undefined) => (path === undefined ? undefined : readRuleFile(path, { rule: tls.source, signal }));
  const [ca, cert, key] = await Promise.all([read(tls.caCertificates), read(tls.clientCertificate), read(tls.privateKey)]);
  const text = JSON.stringify([ca, cert, key]);
  const known = contexts.get(text);
  if (known !== undefined) return known;
  try {
    const context = createSecureContext({
      ca: ca ?? getCACertificates('default'),
      minVersion: 'TLSv1.2',
      ...(cert === undefined ? {} : { cert }),
      ...(key === undefined ? {} : { key }),
    });
    if (contexts.size >= MAX_CONTEXTS) contexts.clear();
    contexts.set(text, context);
    return context;
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `${tls.source}: its certificate, key or CA file cannot be used: ${messageOf(cause)}`, {
      cause,
    });
  }
}

const MAX_CONTEXTS = 100;
const contexts = new Map<string, SecureContext>();
