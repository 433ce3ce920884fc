// A public key as SubjectPublicKeyInfo. Exporting costs OpenSSL as much as signing does, and the CA needs the bytes of each key several times.

import type { KeyObject } from 'node:crypto';

const exported = new WeakMap<KeyObject, Buffer>();

/** DER; shared between callers, who do not change it. */
export function spkiOf(publicKey: KeyObject): Buffer {
  const known = exported.get(publicKey);
  if (known !== undefined) return known;
  const der = publicKey.export({ type: 'spki', format: 'der' });
  exported.set(publicKey, der);
  return der;
}
