// The CA's TLS port for nodes elsewhere: by their certificates, and while a join token waits for them (or tokens are enough) also without one.

import type { Server } from '@grpc/grpc-js';
import { HandfastError } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import { chooseHttp2 } from '../tls/alpn.ts';
import { Terminator } from '../tls/terminate.ts';
import type { Refusal } from '../wire/admission.ts';
import type { Caller } from '../wire/caller.ts';
import { type GrpcListener, listenTls } from '../wire/grpc-listener.ts';
import { checkMember } from '../wire/mesh-member.ts';
import type { Authority } from './authority.ts';
import type { JoinTokens } from './join-tokens.ts';
import type { NodeAccounts } from './node-accounts.ts';
import { ownIdentity } from './own-identity.ts';

export interface NodeListenerOptions {
  /** For callers with a certificate. */
  readonly server: Server;
  /** For callers without one. */
  readonly strangers: Server;
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
const JOINING = { lifetimeMs: 10_000, maxAnonymous: 256, maxPerAnonymousAddress: 32 };
/** Istio's agents and sidecars without an agent stay; a quarter of all places is left to nodes. */
const TOKENS_ALONE = { lifetimeMs: undefined, maxAnonymous: 12_288, maxPerAnonymousAddress: 1_024 };

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
  const { lifetimeMs, maxAnonymous, maxPerAnonymousAddress } = options.tokensAlone ? TOKENS_ALONE : JOINING;
  const listener = await listenTls({
    ...options.listen,
    server: options.server,
    anonymousService: { server: options.strangers, lifetimeMs },
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
    },
  };
}

function judge(caller: Caller, { authority, joinTokens, nodeAccounts, tokensAlone, revocations }: NodeListenerOptions): void {
  if (caller.kind === 'tls') checkMember(caller.peer, { trustDomain: authority.trustDomain, revocations: revocations() });
  if (caller.kind === 'anonymous' && !tokensAlone && nodeAccounts === undefined && joinTokens.waiting === 0)
    throw new HandfastError('NO_CLIENT_CERTIFICATE', 'the peer presented no certificate, and no join token is waiting to be used');
}
