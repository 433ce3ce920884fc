// Whoever holds a CA key: a key on disk today; anything that can sign bytes may stand here.

import { createPublicKey, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';

const signAsync = promisify(sign);

/** ECDSA P-256 with SHA-256 over the given bytes; the signature is DER. */
export interface Signer {
  readonly publicKey: KeyObject;
  sign(bytes: Buffer): Promise<Buffer>;
}

export function keySigner(privateKey: KeyObject): Signer {
  return {
    publicKey: createPublicKey(privateKey),
    sign: (bytes) => signAsync('sha256', bytes, privateKey),
  };
}
