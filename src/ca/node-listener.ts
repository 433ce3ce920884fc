// The CA's TLS port for nodes elsewhere: by their certificates, and while a join token waits for them (or tokens are enough) also without one.

import type { Server } from '@grpc/grpc-js';
import { HandfastError } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import { chooseHttp2 } from '../tls/alpn.ts';
import { Terminator } from '../tls/terminate.ts';
import type { Refusal } from '../wire/admission.ts';
import type { Caller } from '../wire/caller.ts';
import { newServer, stopServer } from '../wire/grpc.ts';
import { type GrpcListener, listenTls } from '../wire/grpc-listener.ts';
import { checkMember } from '../wire/mesh-member.ts';
import type { Authority } from './authority.ts';
import type { JoinTokens } from './join-tokens.ts';
import type { NodeAccounts } from './node-accounts.ts';
import { ownIdentity } from './own-identity.ts';

export interface NodeListenerOptions {
  /** For callers with a certificate. */
  readonly server: Server;
  /** Adds what callers without one may ask for. */
  readonly addAnonymousServices: (server: Server) => void;
  readonly listen: { readonly host: string; readonly port: number };
  readonly authority: Authority;
  readonly joinTokens: Pick<JoinTokens, 'waiting'>;
  /** Whoever has a service account's token may come at any time. */
  readonly nodeAccounts?: NodeAccounts | undefined;
  readonly tokensAlone: boolean;
  readonly dnsNames?: readonly string[];
  readonly revocations: () => RevocationList;
  readonly onRefused: (refusal: Refusal) => void;
  readonly log: Log;
  readonly now: () => number;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;
/** Requests of the CA are a CSR and a token. */
export const MAX_REQUEST_BYTES = 64 * 1024;
/** One call to join, and one to try again. */
const JOINING = { maxStreams: 2, lifetimeMs: 10_000, maxAnonymous: 256, maxPerAnonymousAddress: 32 };
/** Istio's agents stay, and ask for all workloads of a node over one connection. */
const TOKENS_ALONE = { maxStreams: 32, lifetimeMs: undefined, maxAnonymous: 16_384, maxPerAnonymousAddress: 1_024 };

/** Serves until `close`. Throws UNAVAILABLE when it cannot begin. */
export async function listenForNodes(options: NodeListenerOptions): Promise<GrpcListener> {
  const { authority, log, now, revocations } = options;
  const stopping = new AbortController();
  const identity = await ownIdentity({ authority, dnsNames: options.dnsNames ?? [], log, now, signal: stopping.signal });
  const terminator = new Terminator({
    handshakeTimeoutMs: HANDSHAKE_TIMEOUT_MS,
    chooseAlpn: chooseHttp2,
    revocations,
    // Nodes that join have no certificate yet; what else they may ask for without one, callers.ts decides.
    anonymous: true,
    now,
  });
  if (identity.current !== undefined) terminator.replace(identity.current);
  identity.subscribe((next) => terminator.replace(next));
  const { maxStreams, lifetimeMs, maxAnonymous, maxPerAnonymousAddress } = options.tokensAlone ? TOKENS_ALONE : JOINING;
  const strangers = newServer({ maxMessageBytes: MAX_REQUEST_BYTES, maxStreams });
  options.addAnonymousServices(strangers);
  const listener = await listenTls({
    ...options.listen,
    server: options.server,
    anonymousService: { server: strangers, lifetimeMs },
    maxAnonymous,
    maxPerAnonymousAddress,
    terminator: { terminate: (raw) => terminator.terminateAny(raw) },
    judge: (caller) => judge(caller, options),
    onRefused: options.onRefused,
    wallClock: now,
  }).catch((error) => {
    stopping.abort();
    throw error;
  });
  return {
    port: listener.port,
    cut: (which) => listener.cut(which),
    close: async () => {
      stopping.abort();
      await listener.close();
      await stopServer(strangers);
    },
  };
}

function judge(caller: Caller, { authority, joinTokens, nodeAccounts, tokensAlone, revocations }: NodeListenerOptions): void {
  if (caller.kind === 'tls') checkMember(caller.peer, { trustDomain: authority.trustDomain, revocations: revocations() });
  if (caller.kind === 'anonymous' && !tokensAlone && nodeAccounts === undefined && joinTokens.waiting === 0)
    throw new HandfastError('NO_CLIENT_CERTIFICATE', 'the peer presented no certificate, and no join token is waiting to be used');
}
