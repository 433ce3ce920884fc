// The questions asked of a connection, as pure functions: may it come in as it is, how must it go out, and is its peer's certificate still good?

import type { ErrorCode } from '../errors.ts';
import { type RevocationList, revocationOf } from '../spiffe/crl.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import { switchFor, type TlsSwitch, type TrafficPolicy, type Workload } from './model.ts';

/** How bytes travel: our mTLS, plain, or a TLS of the application's own that we pass on unread (and that proves nobody to us). */
export type Transport = 'mtls' | 'plaintext' | 'passthrough-tls';

export type Verdict = { readonly allowed: true } | { readonly allowed: false; readonly code: ErrorCode; readonly reason: string };

const ALLOWED: Verdict = Object.freeze({ allowed: true });

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

/** How the client's side reaches a workload: a meshed one by mTLS unless its own policy says DISABLE; never plaintext by accident. */
export function decideOutbound(destination: { workload: Workload; port: number; policy: TrafficPolicy | undefined }): {
  readonly transport: 'mtls' | 'plaintext';
  readonly mode: string;
} {
  const { workload, port, policy } = destination;
  if (!workload.meshed) return { transport: 'plaintext', mode: 'not in the mesh' };
  // A meshed workload whose policy has not arrived is dialled by mTLS: the strict side of not knowing.
  if (policy === undefined) return { transport: 'mtls', mode: 'no policy yet' };
  const { mode } = switchFor(policy, port);
  return { transport: mode === 'DISABLE' ? 'plaintext' : 'mtls', mode };
}

/** Whether a peer that was let in is still unrevoked. */
export function decideRevocation(peer: VerifiedPeer, list: RevocationList): Verdict {
  const revoked = revocationOf(peer, list);
  return revoked === undefined ? { allowed: true } : { allowed: false, code: 'CERTIFICATE_REVOKED', reason: `${peer.id.uri}: ${revoked}` };
}

function unknownMode(mode: never): Verdict {
  return { allowed: false, code: 'NO_POLICY', reason: `unknown mode ${String(mode)}` };
}
