// The CA as a service: an authority and its provers behind a unix socket that only root may open and, where nodes are elsewhere, a TLS port.

import type { Log } from '../observe/log.ts';
import { parseRevocationList, revocationOf } from '../spiffe/crl.ts';
import { parseTrustBundle } from '../spiffe/trust-bundle.ts';
import { chooseHttp2 } from '../tls/alpn.ts';
import { Terminator } from '../tls/terminate.ts';
import { newServer, stopServer } from '../wire/grpc.ts';
import { listenTls, listenUnix } from '../wire/grpc-listener.ts';
import { serveOperators } from '../wire/operator-server.ts';
import { Authority } from './authority.ts';
import { JoinTokens } from './join-tokens.ts';
import { LocalTokenProver, openLocalTokenKey, type TokenProver } from './local-token.ts';
import { addNodeService } from './node-service.ts';
import { caOperatorRoutes } from './operator-routes.ts';
import { ownIdentity } from './own-identity.ts';
import { addWorkloadServices } from './server.ts';
import { addTrustService } from './trust-server.ts';

export interface CaOptions {
  /** Directory of the CA's keys, ledger and lists. */
  readonly stateDir: string;
  readonly socket: string;
  readonly operatorSocket: string;
  /** For nodes elsewhere: `host:port`. */
  readonly listen?: { readonly host: string; readonly port: number };
  /** DNS names for the certificate of the TLS listener, for callers that know the CA by name. */
  readonly dnsNames?: readonly string[];
  readonly trustDomain: string;
  readonly svidTtlMs: number;
  readonly nodeTtlMs: number;
  readonly jwtTtlMs: number;
  readonly audience: string;
  /** Further proofs of a workload, beside tokens of `handfast token create`. */
  readonly prover?: (local: TokenProver) => TokenProver;
  readonly tokensAlone: boolean;
  readonly log: Log;
  readonly now: () => number;
}

const HANDSHAKE_TIMEOUT_MS = 10_000;

export interface RunningCa {
  /** Of the TLS listener; 0 without one. */
  readonly port: number;
  stop(): Promise<void>;
}

/** Serves until `stop` is called. Throws STATE_INVALID, CONFIG_INVALID or UNAVAILABLE when it cannot begin. */
export async function startCa(options: CaOptions): Promise<RunningCa> {
  const { log, now, stateDir, listen } = options;
  const running: (() => unknown)[] = [];
  const stop = async () => {
    for (const end of running.reverse()) await end();
  };
  try {
    const { trustDomain, svidTtlMs, jwtTtlMs } = options;
    const authority = await Authority.open({ dir: stateDir, trustDomain, svidTtlMs, jwtTtlMs, log, now });
    running.push(() => authority.close());
    const local = new LocalTokenProver({ key: await openLocalTokenKey(stateDir), audience: options.audience, now });
    const joinTokens = await JoinTokens.open({ dir: stateDir, now });
    const server = newServer();
    addWorkloadServices(server, { authority, prover: options.prover?.(local) ?? local, tokensAlone: options.tokensAlone, log });
    addNodeService(server, { authority, joinTokens, nodeTtlMs: options.nodeTtlMs, log });
    const followers = addTrustService(server, { trust: authority.trust, log });
    running.push(() => stopServer(server));

    const onRefused = (refusal: object) => log.warn(refusal, 'connection refused');
    const revocations = () => {
      const { crlPem, bundlePem } = authority.trust.current ?? { crlPem: '', bundlePem: authority.bundlePem };
      return parseRevocationList(crlPem, parseTrustBundle(bundlePem, trustDomain));
    };
    let list = revocations();
    authority.trust.subscribe(() => {
      list = revocations();
    });
    const unix = await listenUnix({ server, path: options.socket, mode: 0o600, takeOver: false, onRefused });
    running.push(() => unix.close());
    const tls =
      listen === undefined
        ? undefined
        : await listenForNodes({ server, listen, authority, revocations: () => list, ...options, onRefused, running });
    const operators = await serveOperators({
      path: options.operatorSocket,
      takeOver: false,
      routes: caOperatorRoutes({
        authority,
        joinTokens,
        followers,
        cutRevoked: () => {
          const cut = tls?.cut((caller) => caller.kind === 'tls' && revocationOf(caller.peer, list) !== undefined) ?? 0;
          if (cut > 0) log.warn({ connections: cut }, 'connections of revoked nodes ended');
        },
      }),
    });
    running.push(() => operators.close());
    log.info({ socket: options.socket, port: tls?.port, trustDomain, stateDir }, 'CA listening');
    return { port: tls?.port ?? 0, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function listenForNodes(of: {
  server: ReturnType<typeof newServer>;
  listen: { readonly host: string; readonly port: number };
  authority: Authority;
  revocations: () => ReturnType<typeof parseRevocationList>;
  log: Log;
  now: () => number;
  dnsNames?: readonly string[];
  onRefused: (refusal: object) => void;
  running: (() => unknown)[];
}) {
  const { authority, log, now, revocations } = of;
  const stopping = new AbortController();
  of.running.push(() => stopping.abort());
  const identity = await ownIdentity({ authority, dnsNames: of.dnsNames ?? [], log, now, signal: stopping.signal });
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
  const terminate = (raw: Parameters<typeof terminator.terminateAny>[0]) => terminator.terminateAny(raw);
  const listener = await listenTls({ server: of.server, ...of.listen, terminator: { terminate }, onRefused: of.onRefused });
  of.running.push(() => listener.close());
  return listener;
}
