// Tokens of any OIDC issuer, verified by its published keys: a cluster's service account tokens, without asking the cluster for each.

import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { readJws, verifyJws } from '../spiffe/jwt.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import { fetchIssuerKeys, issuerUrl, readKeysFile } from '../wire/oidc-discovery.ts';
import { JwksCache } from './jwks-cache.ts';
import type { ProvenWorkload, TokenProver } from './local-token.ts';
import { parseServiceAccount } from './service-account.ts';

const TIMEOUT_MS = 5000;
/** Clocks differ: for tokens from a little ahead of us. None is honoured past its end. */
const LEEWAY_MS = 30_000;
const MAX_POD_NAME = 253;

export interface OidcProverOptions {
  /** As it stands in `iss`, to the letter. */
  readonly issuer: string;
  readonly audience: string;
  /** Take the keys from this JWKS file; without it the issuer is asked. */
  readonly jwksFile?: string;
  /** PEM file of the authorities of the issuer's own certificate. */
  readonly caFile?: string;
  readonly timeoutMs?: number;
  readonly now: () => number;
  readonly log?: Log;
}

export class OidcProver implements TokenProver {
  readonly #options: OidcProverOptions;
  readonly #keys: JwksCache;

  /** Throws CONFIG_INVALID for an issuer that may not be asked. */
  constructor(options: OidcProverOptions) {
    const { issuer, jwksFile, caFile, timeoutMs = TIMEOUT_MS, now, log } = options;
    if (jwksFile === undefined) issuerUrl(issuer);
    if (options.audience === '') throw new HandfastError('CONFIG_INVALID', `issuer ${issuer}: an audience is needed`);
    this.#options = options;
    this.#keys = new JwksCache({
      name: issuer,
      fetch: () =>
        jwksFile !== undefined
          ? readKeysFile(jwksFile)
          : fetchIssuerKeys(issuer, { timeoutMs, ...(caFile === undefined ? {} : { caFile }) }),
      now,
      ...(log === undefined ? {} : { log }),
    });
  }

  async prove(token: string): Promise<ProvenWorkload> {
    try {
      const unverified = readJws(token);
      // Before the keys: nobody else's token makes us ask the issuer.
      const { iss } = unverified.claims;
      if (iss !== this.#options.issuer) throw refused(`issuer ${JSON.stringify(iss)} is not ${this.#options.issuer}`);
      const { claims } = verifyJws(unverified, await this.#keys.keysFor(unverified.kid));
      return this.#judge(claims);
    } catch (cause) {
      if (cause instanceof HandfastError && cause.code !== 'JWT_INVALID') throw cause;
      throw new HandfastError('TOKEN_REFUSED', `token refused: ${messageOf(cause)}`, { cause });
    }
  }

  #judge({ aud, exp, nbf, iat, sub, ...claims }: Readonly<Record<string, unknown>>): ProvenWorkload {
    const now = this.#options.now();
    const { audience } = this.#options;
    if (aud !== audience && !(Array.isArray(aud) && aud.includes(audience)))
      throw refused(`audience ${JSON.stringify(aud)} lacks ${audience}`);
    // Written so that what is no number is refused.
    if (typeof exp !== 'number' || !(now < exp * 1000)) throw refused('expired');
    for (const from of [nbf, iat]) {
      if (from !== undefined && !(typeof from === 'number' && now >= from * 1000 - LEEWAY_MS)) throw refused('not valid yet');
    }
    const proven = parseServiceAccount(sub);
    if (proven === undefined) throw refused(`subject ${JSON.stringify(sub)} is no service account`);
    return { ...proven, ...podOf(claims['kubernetes.io']) };
  }
}

/** What a bound service account token says of its pod. It is no proof by itself: the pod may have ended since. */
function podOf(claim: unknown): { podName?: string; podUid?: string } {
  const pod = isJsonObject(claim) ? claim.pod : undefined;
  const { name, uid } = isJsonObject(pod) ? pod : {};
  return { ...(isShort(name) ? { podName: name } : {}), ...(isShort(uid) ? { podUid: uid } : {}) };
}

function isShort(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= MAX_POD_NAME;
}

function refused(reason: string): HandfastError {
  return new HandfastError('TOKEN_REFUSED', `token refused: ${reason}`);
}
