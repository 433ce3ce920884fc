// The CA as a service: an authority and its provers behind a unix socket that only root may open and, where nodes are elsewhere, a TLS port.

import type { Log } from '../observe/log.ts';
import { parseRevocationList, revocationOf } from '../spiffe/crl.ts';
import { parseTrustBundle } from '../spiffe/trust-bundle.ts';
import { newServer, stopServer } from '../wire/grpc.ts';
import { listenUnix } from '../wire/grpc-listener.ts';
import { serveOperators } from '../wire/operator-server.ts';
import { AttemptLimits } from './attempt-limits.ts';
import { Authority } from './authority.ts';
import { JoinTokens } from './join-tokens.ts';
import { LocalTokenProver, openLocalTokenKey, type TokenProver } from './local-token.ts';
import type { NodeAccounts } from './node-accounts.ts';
import { listenForNodes, MAX_REQUEST_BYTES } from './node-listener.ts';
import { addNodeService } from './node-service.ts';
import { caOperatorRoutes } from './operator-routes.ts';
import { RefusalLog } from './refusal-log.ts';
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
  /** The `iss` of JWT-SVIDs, an https URL; without it they have none. */
  readonly jwtIssuer?: string | undefined;
  readonly audience: string;
  /** Further proofs of a workload, beside tokens of `handfast token create`. */
  readonly prover?: (local: TokenProver) => TokenProver;
  readonly tokensAlone: boolean;
  /** Nodes that prove themselves by service accounts' tokens, beside join tokens. */
  readonly nodeAccounts?: NodeAccounts | undefined;
  /** Told all current roots in PEM: to begin with, and whenever they change. */
  readonly onBundle?: ((bundlePem: string) => void) | undefined;
  readonly log: Log;
  readonly now: () => number;
}

/** Of one node, which asks for all its workloads. */
const MAX_STREAMS = 100;
/** Of a caller without a certificate: one call to join, and one to try again; or what Istio's agents and sidecars without an agent ask over one connection. */
const MAX_STREAMS_JOINING = 2;
const MAX_STREAMS_ALONE = 32;

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
    const { trustDomain, svidTtlMs, jwtTtlMs, jwtIssuer } = options;
    const authority = await Authority.open({ dir: stateDir, trustDomain, svidTtlMs, jwtTtlMs, jwtIssuer, log, now });
    running.push(() => authority.close());
    const local = new LocalTokenProver({ key: await openLocalTokenKey(stateDir), audience: options.audience, now });
    const joinTokens = await JoinTokens.open({ dir: stateDir, now });
    const server = newServer({ maxMessageBytes: MAX_REQUEST_BYTES, maxStreams: MAX_STREAMS });
    const shared = { authority, log, now, refusals: new RefusalLog(log), attempts: new AttemptLimits() };
    const prover = options.prover?.(local) ?? local;
    const addServices = (to: typeof server) => {
      addWorkloadServices(to, { ...shared, prover, tokensAlone: options.tokensAlone });
      addNodeService(to, { ...shared, joinTokens, nodeAccounts: options.nodeAccounts, nodeTtlMs: options.nodeTtlMs });
    };
    addServices(server);
    tellBundles(authority, options.onBundle);
    const strangers = newServer({
      maxMessageBytes: MAX_REQUEST_BYTES,
      maxStreams: options.tokensAlone ? MAX_STREAMS_ALONE : MAX_STREAMS_JOINING,
    });
    addServices(strangers);
    const { trust } = authority;
    const followers = addTrustService([server, strangers], { ...shared, prover, trust, trustDomain, tokensAlone: options.tokensAlone });
    running.push(() => stopServer(strangers));
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
        : await listenForNodes({
            ...options,
            server,
            strangers,
            listen,
            authority,
            joinTokens,
            revocations: () => list,
            onRefused,
          });
    if (tls !== undefined) running.push(() => tls.close());
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

function tellBundles({ trust, bundlePem }: Authority, onBundle: CaOptions['onBundle']): void {
  onBundle?.(bundlePem);
  // Revocations and JWT keys change it too, which is nothing to a bundle.
  trust.subscribe((next, previous) => {
    if (next.bundlePem !== previous?.bundlePem) onBundle?.(next.bundlePem);
  });
}
