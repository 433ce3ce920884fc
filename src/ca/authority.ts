// The certificate authority: a root that signs intermediates only, an intermediate that signs leaves. Kept as two files, each a key with
// its certificate, so that neither can be there without the other.

import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { join } from 'node:path';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { generateP256, isP256, pkcs8Pem } from '../spiffe/p256.ts';
import { pemBlocks } from '../spiffe/pem.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { createCaCertificate, createSvidCertificate, newSerial } from './certificate.ts';
import { keySigner } from './signer.ts';
import { readOrCreate, replacePrivate } from './state-file.ts';

const SECOND = 1000;
const DAY = 86_400 * SECOND;
const ROOT_LIFETIME = 10 * 365 * DAY;
const INTERMEDIATE_LIFETIME = 365 * DAY;
/** Clocks differ between nodes: a leaf is valid from a little before it was asked for. */
const BACKDATE = 60 * SECOND;

/** Bounds of `--svid-ttl`, in milliseconds. */
export const svidTtlBounds = { min: 10 * SECOND, max: DAY } as const;

/** Leaf, intermediate, root: PEM, in that order, as Istio's CA answers. */
export interface IssuedSvid {
  readonly chain: readonly [leaf: string, intermediate: string, root: string];
  readonly serial: string;
  readonly notAfter: number;
}

interface CaKeyPair {
  readonly key: KeyObject;
  readonly certificatePem: string;
  readonly certificate: X509Certificate;
}

interface AuthorityOptions {
  readonly dir: string;
  readonly trustDomain: string;
  readonly svidTtlMs: number;
  readonly log?: Log;
  readonly now: () => number;
}

export class Authority {
  readonly trustDomain: string;
  readonly #options: AuthorityOptions;
  readonly #root: CaKeyPair;
  #intermediate: CaKeyPair;
  #renewing: Promise<void> | undefined;

  private constructor(options: AuthorityOptions, keys: { root: CaKeyPair; intermediate: CaKeyPair }) {
    this.trustDomain = options.trustDomain;
    this.#options = options;
    this.#root = keys.root;
    this.#intermediate = keys.intermediate;
  }

  /** Reads the CA from `dir`, or makes it there on first start. Throws STATE_INVALID for files that cannot be this CA's. */
  static async open(options: AuthorityOptions): Promise<Authority> {
    const { svidTtlMs } = options;
    if (!(svidTtlMs >= svidTtlBounds.min && svidTtlMs <= svidTtlBounds.max)) {
      throw new HandfastError(
        'CONFIG_INVALID',
        `SVID lifetime ${svidTtlMs / SECOND} s: from ${svidTtlBounds.min / SECOND} s to 24 h is accepted`,
      );
    }
    const rootPath = join(options.dir, 'root.pem');
    const root = parseKeyPair(await readOrCreate(rootPath, () => makeRoot(options)), rootPath);
    if (!root.certificate.verify(root.certificate.publicKey))
      throw new HandfastError('STATE_INVALID', `${rootPath}: the root is not self-signed`);
    if (root.certificate.subjectAltName !== `URI:spiffe://${options.trustDomain}`) {
      throw new HandfastError(
        'STATE_INVALID',
        `${rootPath} is the root of ${root.certificate.subjectAltName ?? 'no trust domain'}, not of ${options.trustDomain}: give --trust-domain its name, or another --state directory`,
      );
    }
    const path = join(options.dir, 'intermediate.pem');
    const intermediate = parseKeyPair(await readOrCreate(path, () => makeIntermediate(root, options)), path);
    if (!intermediate.certificate.checkIssued(root.certificate) || !intermediate.certificate.verify(root.certificate.publicKey)) {
      throw new HandfastError('STATE_INVALID', `${path} was not issued by ${rootPath}: remove it to have a new one made`);
    }
    return new Authority(options, { root, intermediate });
  }

  /** The root in PEM: what everybody in the trust domain verifies against. */
  get bundlePem(): string {
    return this.#root.certificatePem;
  }

  /** Signs a leaf for `id`, which the caller has proven. A shorter `ttlMs` is honoured, a longer one is not. Throws STATE_INVALID once the CA has expired. */
  async issue(request: { id: SpiffeId; publicKey: KeyObject; ttlMs?: number }): Promise<IssuedSvid> {
    const now = this.#options.now();
    await this.#renewIntermediate(now).catch((error) => {
      // The old one signs on while it lives; the next request tries again.
      this.#options.log?.error({ reason: messageOf(error) }, 'intermediate not renewed');
    });
    const { key, certificatePem, certificate } = this.#intermediate;
    const asked = request.ttlMs !== undefined && request.ttlMs > 0 ? request.ttlMs : this.#options.svidTtlMs;
    const ttl = Math.max(svidTtlBounds.min, Math.min(asked, this.#options.svidTtlMs));
    const notAfter = Math.min(now + ttl, certificate.validToDate.getTime());
    if (notAfter <= now) {
      throw new HandfastError(
        'STATE_INVALID',
        `the CA in ${this.#options.dir} expired at ${certificate.validToDate.toISOString()}: it needs a new root`,
      );
    }
    const serial = newSerial();
    const leaf = await createSvidCertificate({
      id: request.id,
      publicKey: request.publicKey,
      issuer: { commonName: intermediateName(this.trustDomain), signer: keySigner(key) },
      validity: { notBefore: now - BACKDATE, notAfter },
      serial,
    });
    return { chain: [leaf, certificatePem, this.bundlePem], serial: serial.toString('hex').toUpperCase(), notAfter };
  }

  /** A new intermediate once two thirds of the old one's life are gone: leaves signed by either verify against the same root. */
  #renewIntermediate(now: number): Promise<void> {
    const { certificate } = this.#intermediate;
    const [from, to] = [certificate.validFromDate.getTime(), certificate.validToDate.getTime()];
    const rootEnd = this.#root.certificate.validToDate.getTime();
    // Near the root's end a new one would live no longer than the old.
    if (to - now > (to - from) / 3 || Math.min(now + INTERMEDIATE_LIFETIME, rootEnd) <= to) return Promise.resolve();
    this.#renewing ??= this.#makeIntermediate().finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  async #makeIntermediate(): Promise<void> {
    const pem = await makeIntermediate(this.#root, this.#options);
    const path = join(this.#options.dir, 'intermediate.pem');
    await replacePrivate(path, pem);
    this.#intermediate = parseKeyPair(pem, path);
  }
}

function rootName(trustDomain: string): string {
  return `Handfast root CA of ${trustDomain}`.slice(0, 64);
}

function intermediateName(trustDomain: string): string {
  return `Handfast intermediate CA of ${trustDomain}`.slice(0, 64);
}

async function makeRoot({ trustDomain, now }: AuthorityOptions): Promise<string> {
  const { publicKey, privateKey } = await generateP256();
  const certificate = await createCaCertificate({
    commonName: rootName(trustDomain),
    trustDomain,
    publicKey,
    pathLength: 1,
    issuer: { commonName: rootName(trustDomain), signer: keySigner(privateKey) },
    validity: { notBefore: now() - BACKDATE, notAfter: now() + ROOT_LIFETIME },
  });
  return pkcs8Pem(privateKey) + certificate;
}

async function makeIntermediate(root: CaKeyPair, { trustDomain, now }: AuthorityOptions): Promise<string> {
  const { publicKey, privateKey } = await generateP256();
  const certificate = await createCaCertificate({
    commonName: intermediateName(trustDomain),
    trustDomain,
    publicKey,
    pathLength: 0,
    issuer: { commonName: rootName(trustDomain), signer: keySigner(root.key) },
    validity: { notBefore: now() - BACKDATE, notAfter: Math.min(now() + INTERMEDIATE_LIFETIME, root.certificate.validToDate.getTime()) },
  });
  return pkcs8Pem(privateKey) + certificate;
}

function parseKeyPair(pem: string, path: string): CaKeyPair {
  const [keyBlock, certificateBlock] = pemBlocks(pem);
  try {
    if (keyBlock === undefined || certificateBlock === undefined) throw new Error('expected a private key and a certificate');
    const key = createPrivateKey(keyBlock.text);
    if (!isP256(key)) throw new Error('the key is not P-256');
    const certificate = new X509Certificate(certificateBlock.text);
    if (!certificate.ca || !certificate.checkPrivateKey(key)) throw new Error('key and CA certificate do not belong together');
    return { key, certificate, certificatePem: certificateBlock.text };
  } catch (cause) {
    throw new HandfastError(
      'STATE_INVALID',
      `${path}: ${messageOf(cause)}; restore it from a backup, or remove it to have a new one made`,
      { cause },
    );
  }
}
