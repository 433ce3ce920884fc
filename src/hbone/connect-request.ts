// What a CONNECT must look like (RFC 9113, 8.3 and 8.5), and which address and port its :authority names.

import { isIP } from 'node:net';
import { canonicalIp } from '../policy/ip.ts';
import { readFields } from './field-rules.ts';
import type { HeaderField } from './hpack-decoder.ts';

/** `malformed`: no request at all, which resets the stream; another method is answered. */
export type Request =
  | { readonly kind: 'connect'; readonly authority: string }
  | { readonly kind: 'other'; readonly method: string }
  | { readonly kind: 'malformed' };

const MALFORMED: Request = { kind: 'malformed' };

export function readRequest(fields: readonly HeaderField[]): Request {
  const pseudo = readFields(fields);
  if (pseudo === undefined) return MALFORMED;
  const method = pseudo.get(':method');
  if (method === undefined) return MALFORMED;
  if (method !== 'CONNECT') {
    const whole = pseudo.has(':scheme') && pseudo.has(':path') && pseudo.get(':path') !== '';
    const known = [...pseudo.keys()].every((name) => name === ':method' || name === ':scheme' || name === ':path' || name === ':authority');
    return whole && known ? { kind: 'other', method } : MALFORMED;
  }
  const authority = pseudo.get(':authority');
  // With a :protocol it would be an extended CONNECT (RFC 8441), which nobody announced.
  return authority === undefined || pseudo.size !== 2 ? MALFORMED : { kind: 'connect', authority };
}

/** `10.0.0.7:8080` or `[fd00::7]:8080`, address in canonical text. Undefined for everything else, names too: who connects has resolved them. */
export function parseAuthority(authority: string): { readonly address: string; readonly port: number } | undefined {
  const [, v6, v4, portText = ''] = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9.]{7,15})):([0-9]{1,5})$/.exec(authority) ?? [];
  const port = Number(portText);
  if (port < 1 || port > 65_535) return undefined;
  if (v4 !== undefined) return isIP(v4) === 4 ? { address: v4, port } : undefined;
  return v6 !== undefined && isIP(v6) === 6 ? { address: canonicalIp(v6), port } : undefined;
}
