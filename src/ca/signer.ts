// Whoever holds a key of the CA: a key on disk today; an HSM, or anything that signs bytes, may stand here tomorrow, and nothing else changes.

import { createPrivateKey, createPublicKey, type KeyObject, sign } from 'node:crypto';
import { promisify } from 'node:util';
import { generateP256, isP256, pkcs8Pem } from '../spiffe/p256.ts';

const signAsync = promisify(sign);

/**
 * Signs certificates, CRLs and JWTs alike. What an implementation must give:
 * - `publicKey` is a P-256 key that never changes in the signer's life: it is compared with certificates and named in them.
 * - `sign` hashes the bytes it gets with SHA-256 and returns the ECDSA signature as DER (RFC 3279). It may be called many times at once.
 * - It rejects when it cannot sign. It brings its own deadline: whoever waits for a signature waits for it alone. Retrying is the caller's.
 */
export interface Signer {
  readonly publicKey: KeyObject;
  sign(bytes: Buffer): Promise<Buffer>;
}

/**
 * Where keys come from. `pem` is what the CA's state keeps of a key: the key itself for keys on disk, or a reference (one PEM block with a
 * label of its own, URI or slot inside) for a store that never lets it out. `open` rejects what it did not make.
 */
export interface KeyStore {
  create(): Promise<{ signer: Signer; pem: string }>;
  open(pem: string): Promise<Signer>;
}

export function keySigner(privateKey: KeyObject): Signer {
  return {
    publicKey: createPublicKey(privateKey),
    sign: (bytes) => signAsync('sha256', bytes, privateKey),
  };
}

/** Keys in the CA's own state, as PKCS#8. */
export const diskKeys: KeyStore = {
  create: async () => {
    const { privateKey } = await generateP256();
    return { signer: keySigner(privateKey), pem: pkcs8Pem(privateKey) };
  },
  open: async (pem) => {
    const key = createPrivateKey(pem);
    if (!isP256(key)) throw new Error('the key is not P-256');
    return keySigner(key);
  },
};
