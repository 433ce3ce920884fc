// The questions asked of a connection, as pure functions: may it come in as it is, how must it go out, and is its peer's certificate still good?

import { type RevocationList, revocationOf } from '../spiffe/crl.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import { isStillTrusted, type VerifiedPeer } from '../spiffe/verify-peer.ts';
import { type AuthorizationSet, decideAuthorization } from './authorization.ts';
import { clientTlsFor } from './client-tls.ts';
import type { HttpRequestFacts } from './http-request.ts';
import {
  type ClientTls,
  type Endpoint,
  type InboundSwitches,
  type Service,
  switchFor,
  type TlsSwitch,
  type TrafficPolicy,
  type Workload,
} from './model.ts';
import { ALLOWED, type Verdict } from './verdict.ts';

/** How bytes travel: our mTLS, plain, or a TLS of the application's own that we pass on unread (and that proves nobody to us). */
export type Transport = 'mtls' | 'plaintext' | 'passthrough-tls';

/** How we go out: `tls` is ordinary TLS to a server outside the mesh, as a DestinationRule wants it. */
export type OutboundTransport = 'mtls' | 'tls' | 'plaintext';

/** Whether a connection that arrived by `transport` may reach a port under this switch. */
export function decideInbound(tlsSwitch: TlsSwitch, transport: Transport): Verdict {
  switch (tlsSwitch.mode) {
    case 'STRICT':
      return transport === 'mtls'
        ? ALLOWED
        : {
            allowed: false,
            code: 'PLAINTEXT_UNDER_STRICT',
            reason: `${transport === 'plaintext' ? 'plaintext' : "TLS that is not the mesh's own"} refused: STRICT by ${tlsSwitch.source}`,
          };
    case 'PERMISSIVE':
      return ALLOWED;
    case 'DISABLE':
      // Under DISABLE nothing is terminated, so nothing can have arrived by mTLS; a connection that did predates the switch.
      return transport === 'mtls'
        ? { allowed: false, code: 'TRANSPORT_CHANGED', reason: `mTLS ended: DISABLE by ${tlsSwitch.source}` }
        : ALLOWED;
    default:
      return unknownMode(tlsSwitch.mode);
  }
}

/** A connection that arrived, as far as it is known when it is judged. */
export interface Arrival {
  readonly transport: Transport;
  /** Proven by mTLS, or nobody. */
  readonly peer: SpiffeId | undefined;
  /** Canonical text. */
  readonly sourceIp: string;
  readonly destination: Endpoint;
}

/** Both questions asked of what comes in: must it be mTLS, and may this peer reach this port? */
export function decideArrival(
  arrival: Arrival,
  of: { switches: InboundSwitches; authorizations: AuthorizationSet; dryRun?: boolean },
): Verdict {
  const byTransport = decideInbound(switchFor(of.switches, arrival.destination.port), arrival.transport);
  return byTransport.allowed ? decideAuthorization(of.authorizations, arrival, { dryRun: of.dryRun === true }) : byTransport;
}

/** The same as if what is in dry-run were in force. */
export function decideShadow(arrival: Arrival, of: { policy: TrafficPolicy; authorizations: AuthorizationSet }): Verdict {
  return decideArrival(arrival, { switches: of.policy.shadow ?? of.policy, authorizations: of.authorizations, dryRun: true });
}

/** The same two questions of a request on a connection that has arrived. */
export function decideRequest(
  arrival: Arrival,
  request: HttpRequestFacts,
  of: { switches: InboundSwitches; authorizations: AuthorizationSet; dryRun?: boolean },
): Verdict {
  const byTransport = decideInbound(switchFor(of.switches, arrival.destination.port), arrival.transport);
  return byTransport.allowed
    ? decideAuthorization(of.authorizations, { ...arrival, request }, { dryRun: of.dryRun === true })
    : byTransport;
}

/** Whether requests are read on a connection: of a port that is declared HTTP, whoever speaks TLS of its own to it excepted. */
export function readsRequests({ http }: TrafficPolicy, { transport, destination }: Arrival): boolean {
  return transport !== 'passthrough-tls' && http?.ports.includes(destination.port) === true;
}

/** Whom a client dials: `port` is the endpoint's, `servicePort` the service's. */
export interface Departure {
  readonly workload: Workload;
  readonly port: number;
  readonly service: Service | undefined;
  readonly servicePort: number;
  /** The client's own policy, and the destination's. */
  readonly client: TrafficPolicy;
  readonly server: TrafficPolicy | undefined;
}

/** `mode` says in words who decided. `tls` are the settings of the rule that did, if one did. */
export interface OutboundDecision {
  readonly transport: OutboundTransport;
  readonly mode: string;
  readonly tls: ClientTls | undefined;
}

/** How the client's side reaches a workload: as its rule says, and without one by mTLS whoever can; never plaintext by accident, nor where it is known to be refused. */
export function decideOutbound(departure: Departure): OutboundDecision {
  const { service, servicePort, client } = departure;
  const tls = service === undefined ? undefined : clientTlsFor(client, { service, port: servicePort });
  switch (tls?.mode) {
    case undefined:
      return { ...automatic(departure), tls: undefined };
    case 'DISABLE':
      return { ...asPlainAsAllowed(departure, tls), tls };
    case 'ISTIO_MUTUAL':
      return { transport: 'mtls', mode: `ISTIO_MUTUAL by ${tls.source}`, tls };
    case 'SIMPLE':
    case 'MUTUAL':
      return { transport: 'tls', mode: `${tls.mode} by ${tls.source}`, tls };
    default:
      // An unknown word is refused where it is read; should one come this far, mTLS is the strict side.
      return { transport: 'mtls', mode: `unknown mode ${String(tls?.mode satisfies undefined)}`, tls: undefined };
  }
}

/** Auto-mTLS: whatever the destination takes, by mTLS where it takes both. */
function automatic({ workload, port, server }: Departure): { transport: OutboundTransport; mode: string } {
  if (!workload.meshed) return { transport: 'plaintext', mode: 'not in the mesh' };
  // A meshed workload whose policy has not arrived is dialled by mTLS: the strict side of not knowing.
  if (server === undefined) return { transport: 'mtls', mode: 'no policy yet' };
  const { mode } = switchFor(server.announced ?? server, port);
  return { transport: mode === 'DISABLE' ? 'plaintext' : 'mtls', mode };
}

/** A client that is told DISABLE goes by mTLS all the same where plaintext is known to be refused: nobody is served by dialling it. */
function asPlainAsAllowed({ workload, port, server }: Departure, tls: ClientTls): { transport: OutboundTransport; mode: string } {
  const serverMode = server === undefined ? 'STRICT' : switchFor(server.announced ?? server, port).mode;
  if (workload.meshed && serverMode === 'STRICT')
    return { transport: 'mtls', mode: `STRICT (the client's side says DISABLE by ${tls.source})` };
  return { transport: 'plaintext', mode: `DISABLE by ${tls.source}` };
}

/** Whether a peer that was let in is still unrevoked. */
export function decideRevocation(peer: VerifiedPeer, list: RevocationList): Verdict {
  const revoked = revocationOf(peer, list);
  return revoked === undefined ? { allowed: true } : { allowed: false, code: 'CERTIFICATE_REVOKED', reason: `${peer.id.uri}: ${revoked}` };
}

/** Whether a peer that was let in would still be verified: its chain ends in what is the bundle of its trust domain now. */
export function decideTrust(peer: VerifiedPeer, bundles: TrustBundles): Verdict {
  if (isStillTrusted(peer, bundles)) return ALLOWED;
  return { allowed: false, code: 'CHAIN_UNTRUSTED', reason: `${peer.id.uri}: its chain ends in a root that is not trusted any more` };
}

function unknownMode(mode: never): Verdict {
  return { allowed: false, code: 'NO_POLICY', reason: `unknown mode ${String(mode)}` };
}
