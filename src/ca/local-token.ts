// Tokens for one machine: JWTs (RFC 7519) signed by a key beside the CA's. They say what a Kubernetes service-account token says:
// which namespace and service account the holder runs as.

import { createPrivateKey, createPublicKey, type KeyObject, randomUUID, sign, verify } from 'node:crypto';
import { join } from 'node:path';
import { HandfastError, messageOf } from '../errors.ts';
import { generateP256, isP256, pkcs8Pem } from '../spiffe/p256.ts';
import { readOrCreate, readPrivate } from '../store/state-file.ts';
import { NAMESPACE, parseServiceAccount, SERVICE_ACCOUNT, type ServiceAccount } from './service-account.ts';

export const DEFAULT_AUDIENCE = 'handfast-ca';
/** The `iss` of these tokens. */
export const LOCAL_ISSUER = 'handfast/local';
const HEADER = Buffer.from(JSON.stringify({ alg: 'ES256', typ: 'JWT' })).toString('base64url');
const MAX_TOKEN_BYTES = 8192;
/** As far as the clocks of a mesh may be apart; nobody gets more than this from it. */
const LEEWAY_S = 30;
/** Who a token proves its holder to be; which pod, where its issuer says so. */
export interface ProvenWorkload extends ServiceAccount {
  readonly podName?: string;
  readonly podUid?: string;
  /** Where that pod runs. */
  readonly nodeName?: string;
}

/** Proves tokens. Throws TOKEN_REFUSED with the reason, which stays on the proving side, or UNAVAILABLE when whoever knows cannot be asked. */
export interface TokenProver {
  prove(token: string): Promise<ProvenWorkload>;
}

/** The key beside the CA's, made on first use. */
export async function openLocalTokenKey(dir: string): Promise<KeyObject> {
  const path = keyPath(dir);
  const pem = await readOrCreate(path, async () => {
    const { privateKey } = await generateP256();
    return pkcs8Pem(privateKey);
  });
  return parseKey(path, pem);
}

/** The same, for whoever only uses it. Throws STATE_INVALID where no CA has made one: its tokens would be worth nothing. */
export async function readLocalTokenKey(dir: string): Promise<KeyObject> {
  const path = keyPath(dir);
  const pem = await readPrivate(path);
  if (pem === undefined)
    throw new HandfastError(
      'STATE_INVALID',
      `there is no ${path}: start handfast up or handfast ca first, or name its directory by --state`,
    );
  return parseKey(path, pem);
}

function keyPath(dir: string): string {
  return join(dir, 'token-signing.pem');
}

function parseKey(path: string, pem: string): KeyObject {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (cause) {
    throw new HandfastError('STATE_INVALID', `${path}: ${messageOf(cause)}`, { cause });
  }
  if (!isP256(key)) throw new HandfastError('STATE_INVALID', `${path}: not a P-256 key; remove it to have a new one made`);
  return key;
}

/** A signed JWT. `ttlS` in seconds. Throws CONFIG_INVALID for names Kubernetes would not accept either. */
export function createLocalToken(of: ProvenWorkload & { audience: string; ttlS: number; key: KeyObject; now: number }): string {
  if (!NAMESPACE.test(of.namespace)) throw badName('namespace', of.namespace);
  if (!SERVICE_ACCOUNT.test(of.serviceAccount)) throw badName('service account', of.serviceAccount);
  const iat = Math.floor(of.now / 1000);
  const claims = {
    iss: LOCAL_ISSUER,
    sub: `system:serviceaccount:${of.namespace}:${of.serviceAccount}`,
    aud: [of.audience],
    iat,
    nbf: iat,
    exp: iat + of.ttlS,
    jti: randomUUID(),
  };
  const signed = `${HEADER}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}`;
  const signature = sign('sha256', Buffer.from(signed), { key: of.key, dsaEncoding: 'ieee-p1363' });
  return `${signed}.${signature.toString('base64url')}`;
}

export class LocalTokenProver implements TokenProver {
  readonly #publicKey: KeyObject;
  readonly #audience: string;
  readonly #now: () => number;

  constructor(options: { key: KeyObject; audience: string; now: () => number }) {
    this.#publicKey = createPublicKey(options.key);
    this.#audience = options.audience;
    this.#now = options.now;
  }

  async prove(token: string): Promise<ProvenWorkload> {
    const [header, payload, signature, ...rest] = token.length <= MAX_TOKEN_BYTES ? token.split('.') : [];
    if (header === undefined || payload === undefined || signature === undefined || rest.length > 0) throw refused('not a compact JWT');
    // The header is compared, not interpreted: no algorithm to confuse, no `jku`, `x5c` or `crit` to follow.
    if (header !== HEADER) throw refused('not a token of `handfast token create`: its header is another');
    const bytes = Buffer.from(signature, 'base64url');
    // One signature, one text: node:crypto's decoder skips what is no base64url.
    if (bytes.toString('base64url') !== signature) throw refused('the signature is not base64url');
    const valid = verify('sha256', Buffer.from(`${header}.${payload}`), { key: this.#publicKey, dsaEncoding: 'ieee-p1363' }, bytes);
    if (!valid) throw refused("the signature does not verify with this CA's token key");
    return this.#judge(claimsOf(payload));
  }

  #judge(claims: Readonly<Record<string, unknown>>): ProvenWorkload {
    const now = this.#now() / 1000;
    const { iss, aud, exp, nbf, sub } = claims;
    if (iss !== LOCAL_ISSUER) throw refused(`issuer ${JSON.stringify(iss)} is not ${LOCAL_ISSUER}`);
    if (!Array.isArray(aud) || !aud.includes(this.#audience)) throw refused(`audience ${JSON.stringify(aud)} lacks ${this.#audience}`);
    if (!Number.isFinite(exp) || now > Number(exp) + LEEWAY_S) throw refused('expired');
    if (!Number.isFinite(nbf) || now < Number(nbf) - LEEWAY_S) throw refused('not valid yet');
    const proven = parseServiceAccount(sub);
    if (proven === undefined) throw refused(`subject ${JSON.stringify(sub)} is no service account`);
    return proven;
  }
}

function claimsOf(payload: string): Readonly<Record<string, unknown>> {
  try {
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'));
    if (typeof claims === 'object' && claims !== null && !Array.isArray(claims)) return { ...claims };
  } catch (cause) {
    throw new HandfastError('TOKEN_REFUSED', 'the claims are not JSON', { cause });
  }
  throw refused('the claims are not an object');
}

function refused(reason: string): HandfastError {
  return new HandfastError('TOKEN_REFUSED', `token refused: ${reason}`);
}

function badName(what: string, value: string): HandfastError {
  return new HandfastError('CONFIG_INVALID', `${what} ${JSON.stringify(value)}: lower-case letters, digits and '-', as Kubernetes has it`);
}
