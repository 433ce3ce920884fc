// Where a gRPC client of ours connects, and how it knows whom it reached: a unix socket by its path, anything else by mTLS alone.

import { X509Certificate } from 'node:crypto';
import type { SecureContext } from 'node:tls';
import { type ChannelCredentials, type ChannelOptions, type Client, credentials } from '@grpc/grpc-js';
import { HandfastError } from '../errors.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import { verifyPeer } from '../spiffe/verify-peer.ts';
import { clientContext, verifyOnly } from '../tls/context.ts';
import { intermediatesOf } from '../tls/peer-chain.ts';

/** `credentials()` is asked for each new connection, so that a rotated certificate is used from the next one on. */
export interface GrpcTarget {
  /** As gRPC writes it: `unix:/run/handfast/agent.sock` or `host:port`. */
  readonly address: string;
  readonly credentials: () => ChannelCredentials;
  /** The name asked for in TLS; the certificate must be made for it where the server is known by a DNS name. */
  readonly serverName?: string;
}

/** Whom a server must prove to be. */
export type ExpectedServer = { readonly spiffeIds: readonly string[] } | { readonly dnsName: string };

export interface TlsTargetOptions {
  readonly address: string;
  /** Our own certificate; undefined while there is none (a node that joins, a CA that wants tokens alone). */
  readonly identity: () => Identity | undefined;
  readonly bundles: () => TrustBundles;
  readonly revocations: () => RevocationList;
  readonly expected: ExpectedServer;
  readonly now: () => number;
}

const SNI = 'handfast.mesh';
const insecure = credentials.createInsecure();

export function isUnixAddress(address: string): boolean {
  return /^unix:./.test(address);
}

/** Throws CONFIG_INVALID for anything but a unix socket: nothing of ours speaks plaintext over a network. */
export function unixTarget(address: string): GrpcTarget {
  if (!isUnixAddress(address))
    throw new HandfastError('CONFIG_INVALID', `${address}: without TLS only unix:/path/to/socket is accepted; say whom to expect there`);
  return { address, credentials: () => insecure };
}

/** A TCP address, where the server must prove to be whom we expect. */
export function tlsTarget(options: TlsTargetOptions): GrpcTarget {
  const { address, expected } = options;
  if (!/^(\[[0-9a-f:.]+\]|[^:/\s]+):\d{1,5}$/i.test(address))
    throw new HandfastError('CONFIG_INVALID', `${address}: neither unix:/path nor host:port`);
  // One object as long as nothing changed: gRPC compares credentials to share connections.
  let made: { context: SecureContext; credentials: ChannelCredentials } | undefined;
  const current = () => {
    const identity = options.identity();
    const context = identity === undefined ? verifyOnly(options.bundles()) : clientContext(identity);
    if (made?.context !== context) {
      made = { context, credentials: credentials.createFromSecureContext(context, 'dnsName' in expected ? {} : { checkServerIdentity }) };
    }
    return made.credentials;
  };
  const checkServerIdentity = (_host: string, sent: { raw: Buffer }): Error | undefined => {
    try {
      const peer = verifyPeer(
        { leaf: new X509Certificate(sent.raw), intermediates: () => intermediatesOf(sent) },
        { bundles: options.identity()?.bundles ?? options.bundles(), revocations: options.revocations(), now: options.now() },
      );
      const allowed = 'spiffeIds' in expected ? expected.spiffeIds : [];
      if (allowed.includes(peer.id.uri)) return undefined;
      return new HandfastError('SECURE_NAMING_MISMATCH', `${address} must be ${allowed.join(' or ')}, but proved to be ${peer.id.uri}`);
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error));
    }
  };
  // A name in any case: an address may not stand in SNI. Whom a SPIFFE ID names, no DNS name decides.
  return { address, credentials: current, serverName: 'dnsName' in expected ? expected.dnsName : SNI };
}

/** Opens a stream over a channel of its own, which ends with it: so that each attempt uses the credentials of the moment. */
export function openStream<C extends Client, Call extends { once(event: 'status', listener: () => void): unknown }>(
  Service: new (address: string, credentials: ChannelCredentials, options: ChannelOptions) => C,
  to: { target: GrpcTarget; options: ChannelOptions },
  open: (client: C) => Call,
): Call {
  const client = connect(Service, to);
  const call = open(client);
  call.once('status', () => client.close());
  return call;
}

function connect<C extends Client>(
  Service: new (address: string, credentials: ChannelCredentials, options: ChannelOptions) => C,
  { target, options }: { target: GrpcTarget; options: ChannelOptions },
): C {
  return new Service(target.address, target.credentials(), { ...options, ...nameOptions(target) });
}

/** Channel options for a target that is asked for by name. */
export function nameOptions({ serverName }: GrpcTarget): ChannelOptions {
  return serverName === undefined ? {} : { 'grpc.ssl_target_name_override': serverName };
}
