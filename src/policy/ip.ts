// IP addresses in one canonical text form, so that equal addresses are equal strings.

import { isIPv4, isIPv6 } from 'node:net';
import { Address4, Address6 } from 'ip-address';
import { HandfastError } from '../errors.ts';

/** RFC 5952 text; IPv4-mapped IPv6 becomes IPv4, zones are dropped. Throws CONFIG_INVALID for anything else. */
export function canonicalIp(text: string): string {
  // The common cases of an accepted connection, without building an address object.
  if (isIPv4(text)) return text;
  if (text.startsWith('::ffff:') && isIPv4(text.slice(7))) return text.slice(7);
  if (!isIPv6(text)) throw new HandfastError('CONFIG_INVALID', `${JSON.stringify(text)} is not an IP address`);
  const address = new Address6(text.replace(/%.*$/, ''));
  return address.isMapped4() ? address.to4().correctForm() : address.correctForm();
}

/** `10.0.0.7:8080` or `[fd00::7]:8080`. */
export function endpointText({ address, port }: { readonly address: string; readonly port: number }): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** Network byte order: 4 or 16 bytes. */
export function ipToBytes(canonical: string): Buffer {
  if (isIPv4(canonical)) return Buffer.from(canonical.split('.').map(Number));
  const bytes = new Address6(canonical).toUnsignedByteArray();
  return Buffer.concat([Buffer.alloc(16 - bytes.length), Buffer.from(bytes)]);
}

/** Canonical text of 4 or 16 bytes. Throws CONFIG_INVALID for another length. */
export function ipFromBytes(bytes: Uint8Array): string {
  if (bytes.length === 4) return Address4.fromByteArray([...bytes]).correctForm();
  if (bytes.length === 16) return canonicalIp(Address6.fromUnsignedByteArray([...bytes]).correctForm());
  throw new HandfastError('CONFIG_INVALID', `an address of ${bytes.length} bytes: 4 or 16 are accepted`);
}
