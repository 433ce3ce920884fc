// Certificates made at run time: good ones as our CA makes them, and every kind of bad one.

import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import {
  createCaCertificate,
  createCertificate,
  createSvidCertificate,
  type Issuer,
  newSerial,
  type Validity,
} from '../../src/ca/certificate.ts';
import { createCrl } from '../../src/ca/crl-writer.ts';
import { keySigner } from '../../src/ca/signer.ts';
import { bitString, boolean, extension, implicit, oid, sequence } from '../../src/spiffe/der-builder.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';
import { parseTrustBundle, trustBundles } from '../../src/spiffe/trust-bundle.ts';
import { parseX509Svid } from '../../src/spiffe/x509-svid.ts';

const HOUR = 3_600_000;

export interface Pem {
  readonly chain: string;
  readonly key: string;
}

export interface LeafOptions {
  /** URI SANs; default one. */
  readonly uris?: readonly string[];
  readonly ca?: boolean;
  /** Key usage bits of the first byte; default digitalSignature. */
  readonly keyUsage?: number;
  readonly validity?: Validity;
}

export function keyPair(): { publicKey: KeyObject; privateKey: KeyObject } {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' });
}

export function keyPem(key: KeyObject): string {
  return key.export({ type: 'pkcs8', format: 'pem' }).toString();
}

export const aroundNow = (): Validity => ({ notBefore: Date.now() - 60_000, notAfter: Date.now() + HOUR });

/** A root and an intermediate of their own. Two of them with one trust domain are rivals. */
export class TestCa {
  readonly trustDomain: string;
  readonly rootPem: string;
  readonly intermediatePem: string;
  readonly #intermediate: Issuer;

  private constructor(trustDomain: string, made: { rootPem: string; intermediatePem: string; intermediate: Issuer }) {
    this.trustDomain = trustDomain;
    this.rootPem = made.rootPem;
    this.intermediatePem = made.intermediatePem;
    this.#intermediate = made.intermediate;
  }

  static async create(trustDomain = 'cluster.local'): Promise<TestCa> {
    const root = keyPair();
    const rootIssuer = { commonName: 'test root', signer: keySigner(root.privateKey) };
    const common = { trustDomain, issuer: rootIssuer, validity: aroundNow() };
    const rootPem = await createCaCertificate({ ...common, commonName: 'test root', publicKey: root.publicKey, pathLength: 1 });
    const middle = keyPair();
    const intermediatePem = await createCaCertificate({
      ...common,
      commonName: 'test intermediate',
      publicKey: middle.publicKey,
      pathLength: 0,
    });
    return new TestCa(trustDomain, {
      rootPem,
      intermediatePem,
      intermediate: { commonName: 'test intermediate', signer: keySigner(middle.privateKey) },
    });
  }

  /** A good SVID. */
  async svid(id: string, validity: Validity = aroundNow(), serial = newSerial()): Promise<Pem> {
    const { publicKey, privateKey } = keyPair();
    return { chain: await this.chainFor(id, publicKey, validity, serial), key: keyPem(privateKey) };
  }

  /** A good chain for any key. */
  async chainFor(id: string, publicKey: KeyObject, validity: Validity = aroundNow(), serial = newSerial()): Promise<string> {
    const leaf = await createSvidCertificate({
      id: parseSpiffeId(id),
      publicKey,
      issuer: this.#intermediate,
      validity,
      serial,
    });
    return leaf + this.intermediatePem;
  }

  /** A revocation list of this CA, its signer beside it. */
  async crl(blockedIds: readonly string[]): Promise<string> {
    const issuer = this.#intermediate;
    const [thisUpdate, nextUpdate] = [Date.now(), Date.now() + HOUR];
    return (await createCrl({ issuer, number: 1, thisUpdate, nextUpdate, revoked: [], blockedIds })) + this.intermediatePem;
  }

  /** A leaf that this CA should never have signed. */
  async badLeaf(options: LeafOptions): Promise<Pem> {
    const { publicKey, privateKey } = keyPair();
    const uris = options.uris ?? [`spiffe://${this.trustDomain}/ns/foo/sa/sleep`];
    const keyUsage = options.keyUsage ?? 0x80;
    const leaf = await createCertificate({
      subject: sequence(),
      publicKey,
      issuer: this.#intermediate,
      validity: options.validity ?? aroundNow(),
      serial: newSerial(),
      extensions: [
        extension('2.5.29.19', { critical: true, value: options.ca === true ? sequence(boolean(true)) : sequence() }),
        extension('2.5.29.15', { critical: true, value: bitString(Buffer.of(keyUsage)) }),
        extension('2.5.29.37', { critical: false, value: sequence(oid('1.3.6.1.5.5.7.3.1'), oid('1.3.6.1.5.5.7.3.2')) }),
        ...(uris.length === 0
          ? []
          : [extension('2.5.29.17', { critical: true, value: sequence(...uris.map((uri) => implicit(6, Buffer.from(uri)))) })]),
      ],
    });
    return { chain: leaf + this.intermediatePem, key: keyPem(privateKey) };
  }

  async identity(id: string, validity?: Validity): Promise<Identity> {
    return { svid: parseX509Svid(await this.svid(id, validity)), bundles: trustBundles(parseTrustBundle(this.rootPem, this.trustDomain)) };
  }
}
