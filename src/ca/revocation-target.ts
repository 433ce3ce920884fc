// What an operator names to have revoked: one certificate, a key, or an identity.

import { createPublicKey, X509Certificate } from 'node:crypto';
import { HandfastError, messageOf } from '../errors.ts';
import { pemBlocks } from '../spiffe/pem.ts';
import { parseSpiffeId } from '../spiffe/spiffe-id.ts';
import { caId } from '../spiffe/system-ids.ts';
import { KEY_ID, keyIdOf, SERIAL } from './ledger-entry.ts';

/** Serials in upper-case hex, keys as the hex SHA-256 of their SubjectPublicKeyInfo. */
export type RevocationTarget =
  | { readonly kind: 'serial'; readonly serial: string }
  | { readonly kind: 'key'; readonly keyId: string }
  | { readonly kind: 'spiffeId'; readonly spiffeId: string };

/** Hex in either case, with or without colons and leading zeros, as every tool prints it differently. Throws CONFIG_INVALID. */
export function serialTarget(text: string): RevocationTarget {
  const digits = text
    .trim()
    .replace(/^0x/i, '')
    .replaceAll(':', '')
    .toUpperCase()
    .replace(/^0+(?=.)/, '');
  const serial = digits.length % 2 === 0 ? digits : `0${digits}`;
  if (!SERIAL.test(serial))
    throw new HandfastError('CONFIG_INVALID', `serial ${JSON.stringify(text.slice(0, 100))}: hexadecimal digits are expected`);
  return { kind: 'serial', serial };
}

/** A key ID, or the PEM of a public key or certificate. Throws CONFIG_INVALID. */
export function keyTarget(text: string): RevocationTarget {
  const keyId = text.trim().toLowerCase();
  if (KEY_ID.test(keyId)) return { kind: 'key', keyId };
  const [block, ...rest] = pemBlocks(text);
  if (block === undefined || rest.length > 0 || (block.label !== 'CERTIFICATE' && block.label !== 'PUBLIC KEY')) {
    throw new HandfastError(
      'CONFIG_INVALID',
      'key: expected the hex SHA-256 of a SubjectPublicKeyInfo, or the PEM of one PUBLIC KEY or one CERTIFICATE',
    );
  }
  try {
    const publicKey = block.label === 'CERTIFICATE' ? new X509Certificate(block.text).publicKey : createPublicKey(block.text);
    return { kind: 'key', keyId: keyIdOf(publicKey) };
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `key: the ${block.label} cannot be read: ${messageOf(cause)}`, { cause });
  }
}

/** A workload of this trust domain: nobody else's certificates are ours to revoke. Throws CONFIG_INVALID. */
export function spiffeIdTarget(uri: string, trustDomain: string): RevocationTarget {
  let id: { uri: string; trustDomain: string; path: string };
  try {
    id = parseSpiffeId(uri);
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', messageOf(cause), { cause });
  }
  if (id.trustDomain !== trustDomain || id.path === '')
    throw new HandfastError('CONFIG_INVALID', `${id.uri} is no workload of trust domain ${trustDomain}`);
  if (id.uri === caId(trustDomain).uri)
    throw new HandfastError('CONFIG_INVALID', `${id.uri} is the CA itself: what it signs is taken back by a new root (handfast root)`);
  return { kind: 'spiffeId', spiffeId: id.uri };
}
