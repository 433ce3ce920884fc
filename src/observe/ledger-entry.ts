// One line of the ledger: who spoke to whom, and how. The same plain data in the sidecar, in its agent and in control.

/** What makes an entry: two connections of which all of this is equal share one. The fields are those of handfast.report.v1.LedgerEntry. */
export interface LedgerFacts {
  /** `inbound` or `outbound`, seen from the pod that observed it. */
  readonly direction: string;
  /** Without port. */
  readonly peerAddress: string;
  /** Proven; empty where nothing was. */
  readonly peerId: string;
  /** `namespace/name` registered at that address, and the SPIFFE ID that goes with it: no proof. */
  readonly peerWorkload: string;
  readonly peerRegisteredId: string;
  readonly ownAddress: string;
  readonly port: number;
  /** `namespace/hostname`. */
  readonly service: string;
  /** `mtls`, `tls`, `plaintext`, `passthrough-tls` or `unknown`. */
  readonly transport: string;
  /** `allowed`, `refused`, `failed` or `cut`. */
  readonly outcome: string;
  readonly code: string;
  readonly shadowCode: string;
}

/** Times in Unix milliseconds. */
export interface LedgerEntry extends LedgerFacts {
  readonly connections: number;
  readonly open: number;
  readonly firstSeen: number;
  readonly lastSeen: number;
  /** Plaintext of an identity that has spoken mTLS to this port before. */
  readonly tripwire: boolean;
}

/** Equal for equal facts. No field but the last can hold a line feed: addresses, names and IDs were parsed, the rest is ours. */
export function entryKey(of: LedgerFacts): string {
  return `${of.direction}\n${of.peerAddress}\n${of.peerId}\n${of.peerWorkload}\n${of.peerRegisteredId}\n${of.ownAddress}\n${of.port}\n${of.service}\n${of.transport}\n${of.outcome}\n${of.code}\n${of.shadowCode}`;
}

type Course = Pick<LedgerFacts, 'direction' | 'transport' | 'outcome' | 'code'>;

/** What STRICT would refuse: it came in without proving who it is, and was let in, if only to find that the application could not be dialled. */
export function isUnproven(of: Course): boolean {
  const { direction, transport, outcome } = of;
  return direction === 'inbound' && transport !== 'mtls' && (outcome === 'allowed' || outcome === 'cut' || foundNobody(of));
}

/** Let in, and only then nobody answered: who said nothing is no client, and what failed earlier was never let in. */
function foundNobody({ transport, outcome, code }: Course): boolean {
  return outcome === 'failed' && transport !== 'unknown' && (code === 'DIAL_FAILED' || code === 'DIAL_TIMEOUT');
}

/** How hard an entry is to spare. A lower one makes room for a higher one, never the other way round. 0 is for whose word nobody believes. */
export type Tier = 0 | 1 | 2 | 3;

/** Refusals can be had for nothing, by scanning ports, and by plaintext to closed ones more than that; what was let in unproven is what the ledger is kept for. */
export function tierOf(facts: LedgerFacts): Tier {
  if (facts.outcome === 'refused' || facts.outcome === 'failed') return isUnproven(facts) ? 2 : 1;
  return isUnproven(facts) ? 3 : 2;
}

const POLICY_CODES: ReadonlySet<string> = new Set([
  'PLAINTEXT_UNDER_STRICT',
  'AUTHORIZATION_DENIED',
  'TRANSPORT_CHANGED',
  'SECURE_NAMING_MISMATCH',
]);
const PROOF_CODES: ReadonlySet<string> = new Set(['HANDSHAKE_FAILED', 'CHAIN_UNTRUSTED', 'ALPN_MISMATCH']);

/** Whether it ended before it said a word: a port scan, a health check that only connects. It is nobody's failure, and must not dilute those that are either. */
export function isWordless({ outcome, transport }: Pick<LedgerFacts, 'outcome' | 'transport'>): boolean {
  return outcome === 'failed' && transport === 'unknown';
}

/** Whether policy or a proof that did not hold ended it: what a change of policy can bring about. */
export function isPolicyFailure({ outcome, code }: Pick<LedgerFacts, 'outcome' | 'code'>): boolean {
  if (outcome === 'allowed') return false;
  return POLICY_CODES.has(code) || (outcome !== 'cut' && PROOF_CODES.has(code));
}
