// x-forwarded-client-cert: what the application hears of who called. By Envoy's modes and its syntax
// (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-forwarded-client-cert).

import type { ForwardClientCertMode } from '../policy/forward-client-cert.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import { plainName } from './message-headers.ts';

export const FORWARDED_CLIENT_CERT = 'x-forwarded-client-cert';

/** What a peer may bring along: a chain of proxies, and not the whole room for headers. */
const MAX_INCOMING_BYTES = 8 * 1024;

/** Who called, and whom: `by` is our own SPIFFE ID. */
export interface ForwardedPeer {
  readonly by: string;
  readonly peer: VerifiedPeer;
}

/** `value` undefined: no header. */
export type ForwardedClientCert = { readonly value: string | undefined } | { readonly refusal: 'too-long' | 'malformed' };

/** The header's value for the application. `incoming`: the values that came, one for each time that the header did; `from` undefined: a caller who has proven nothing. */
export function forwardedClientCert(
  incoming: readonly string[],
  { mode, from }: { mode: ForwardClientCertMode; from: ForwardedPeer | undefined },
): ForwardedClientCert {
  if (from === undefined || mode === 'SANITIZE') return { value: undefined };
  if (mode === 'SANITIZE_SET') return { value: elementOf(from) };
  const brought = incoming.filter((value) => value !== '').join(',');
  if (brought.length > MAX_INCOMING_BYTES) return { refusal: 'too-long' };
  // A quote that is left open would make what we append a part of somebody's value.
  if (brought !== '' && !isWellFormed(brought)) return { refusal: 'malformed' };
  if (mode === 'FORWARD_ONLY') return { value: brought === '' ? undefined : brought };
  return { value: brought === '' ? elementOf(from) : `${brought},${elementOf(from)}` };
}

/** Under whatever spelling. */
export function isForwardedClientCert(name: string): boolean {
  return plainName(name) === FORWARDED_CLIENT_CERT;
}

const elements = new WeakMap<VerifiedPeer, Map<string, string>>();

/** `By=…;Hash=…;URI=…`: made once for each peer. SPIFFE IDs have no character that would have to be quoted. */
function elementOf({ by, peer }: ForwardedPeer): string {
  const known = elements.get(peer) ?? new Map<string, string>();
  elements.set(peer, known);
  const made = known.get(by) ?? `By=${by};Hash=${hashOf(peer)};URI=${peer.id.uri}`;
  known.set(by, made);
  return made;
}

/** SHA-256 of the leaf, in hex. */
function hashOf(peer: VerifiedPeer): string {
  return (peer.certificates()[0]?.fingerprint256 ?? '').replaceAll(':', '').toLowerCase();
}

/** Elements separated by commas, each of `Key=value` pairs separated by semicolons; a value stands in double quotes where it has one of `,;="`, which are escaped by a backslash. */
const PAIR = /(?:By|Hash|Cert|Chain|Subject|URI|DNS)=(?:"(?:[^"\\]|\\.)*"|[^",;\\\s]*)/iy;

function isWellFormed(text: string): boolean {
  let at = 0;
  for (;;) {
    while (text[at] === ' ') at++;
    PAIR.lastIndex = at;
    if (!PAIR.test(text)) return false;
    at = PAIR.lastIndex;
    while (text[at] === ' ') at++;
    if (at === text.length) return true;
    if (text[at] !== ';' && text[at] !== ',') return false;
    at++;
  }
}
