// What each request to the identity API is answered with, once nothing speaks against looking at it.

import type { IncomingMessage } from 'node:http';
import type { JwtSvidSigner } from '../agent/jwt-svid-cache.ts';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { type MonotonicClock, type Rate, TokenBucket } from '../rate-limit.ts';
import { isTooMuchAudience, MAX_AUDIENCE_BYTES } from '../spiffe/audiences.ts';
import { type JwtTrust, mayJudge } from '../spiffe/jwt-trust.ts';
import { lacksGuardHeader } from './guard.ts';
import { DISCOVERY_PATH, discoveryDocument, JWKS_PATH, publishedKeys } from './published-keys.ts';
import { type Reply, refused, tooOften, unavailable } from './reply.ts';
import { invalid, readBody } from './request-body.ts';
import { isAboutSecrets, SECRET_PATHS, type SecretRequests } from './secret-requests.ts';
import { verdictOn } from './verdict.ts';

export interface IdentityRequestsOptions {
  /** The agent, behind a cache. */
  readonly signer: JwtSvidSigner;
  /** The pod's own token; undefined while there is none. */
  readonly token: () => string | undefined;
  readonly trust: () => JwtTrust | undefined;
  /** Where the application has secrets. */
  readonly secrets?: SecretRequests | undefined;
  readonly log: Log;
  /** Unix milliseconds. */
  readonly now: () => number;
  readonly rates?: { readonly issue: Rate; readonly validate: Rate };
  readonly clock?: MonotonicClock;
}

interface Route {
  readonly method: 'GET' | 'POST';
  readonly answer: (request: IncomingMessage) => Reply | Promise<Reply>;
}

const MAX_AUDIENCES = 16;
const MAX_AUDIENCE_LENGTH = 1024;
/** Of the whole pod. A verdict is a signature check, a fifth of a millisecond, in the thread that serves the pod's connections. */
const RATES = { issue: { burst: 100, perSecond: 20 }, validate: { burst: 1_000, perSecond: 1_000 } };

export class IdentityRequests {
  readonly #options: IdentityRequestsOptions;
  readonly #issues: TokenBucket;
  readonly #judgements: TokenBucket;
  readonly #complaints = new TokenBucket({ burst: 1, perSecond: 1 });
  readonly #routes: ReadonlyMap<string, Route>;

  constructor(options: IdentityRequestsOptions) {
    const { rates = RATES, clock } = options;
    this.#options = options;
    this.#issues = new TokenBucket(rates.issue, clock);
    this.#judgements = new TokenBucket(rates.validate, clock);
    this.#routes = new Map<string, Route>([
      ['/v1/jwt-svid', { method: 'POST', answer: (request) => this.#issue(request) }],
      ['/v1/jwt-svid/validate', { method: 'POST', answer: (request) => this.#validate(request) }],
      [JWKS_PATH, { method: 'GET', answer: () => this.#keys() }],
      [DISCOVERY_PATH, { method: 'GET', answer: () => this.#discovery() }],
    ]);
  }

  /** Rejects when whoever asked has gone. */
  answer(request: IncomingMessage): Reply | Promise<Reply> {
    const { secrets } = this.#options;
    if (secrets !== undefined && isAboutSecrets(request.url)) return lacksGuardHeader(request) ?? secrets.answer(request);
    const route = this.#routes.get(request.url ?? '');
    if (route === undefined) {
      const paths = [...this.#routes.keys(), ...(secrets === undefined ? [] : [SECRET_PATHS])];
      return refused(404, 'NOT_FOUND', `there are: ${paths.join(', ')}`);
    }
    const { method } = route;
    if (request.method !== method) return refused(405, 'METHOD_REFUSED', `only ${method}`, { allow: method });
    // Keys are public, and who fetches them (a library for OIDC) cannot be told to send more.
    return (method === 'POST' ? lacksGuardHeader(request) : undefined) ?? route.answer(request);
  }

  async #issue(request: IncomingMessage): Promise<Reply> {
    // Before the body is read: that is work, too.
    const waitMs = this.#issues.take();
    if (waitMs > 0) return tooOften(waitMs);
    const read = await readBody(request, ['audience']);
    if ('reply' in read) return read.reply;
    const { audience } = read.body;
    if (!isAudiences(audience))
      return invalid(
        `"audience" is a list of 1 to ${MAX_AUDIENCES} texts, each of 1 to ${MAX_AUDIENCE_LENGTH} printable characters, and all of them ${MAX_AUDIENCE_BYTES} bytes at most`,
      );
    try {
      const token = this.#options.token();
      if (token === undefined) return unavailable('the sidecar has no token of its own yet');
      const svid = await this.#options.signer.signJwtSvid({ token, audience });
      const expiresAt = new Date(svid.expiresAt * 1000).toISOString();
      return { status: 200, body: { token: svid.token, spiffeId: svid.spiffeId, expiresAt } };
    } catch (error) {
      if (this.#complaints.take() === 0) this.#options.log.warn({ audience, reason: messageOf(error) }, 'no JWT-SVID for the application');
      return notIssued(error);
    }
  }

  async #validate(request: IncomingMessage): Promise<Reply> {
    const waitMs = this.#judgements.take();
    if (waitMs > 0) return tooOften(waitMs);
    const read = await readBody(request, ['token', 'audience']);
    if ('reply' in read) return read.reply;
    const { token, audience } = read.body;
    if (typeof token !== 'string' || token === '') return invalid('"token" is the JWT-SVID, as text');
    if (typeof audience !== 'string' || !isAudience(audience))
      return invalid(`"audience" is the one name that tokens for you must have, 1 to ${MAX_AUDIENCE_LENGTH} printable characters`);
    const trust = this.#trust();
    return 'reply' in trust ? trust.reply : { status: 200, body: verdictOn(token, { audience, ...trust, now: this.#options.now() }) };
  }

  #keys(): Reply {
    const waitMs = this.#judgements.take();
    if (waitMs > 0) return tooOften(waitMs);
    const trust = this.#trust();
    return 'reply' in trust ? trust.reply : { status: 200, body: publishedKeys(trust.trust), headers: { 'cache-control': 'max-age=60' } };
  }

  #discovery(): Reply {
    const trust = this.#trust();
    if ('reply' in trust) return trust.reply;
    const { issuer } = trust.trust;
    if (issuer === undefined) return refused(404, 'NO_ISSUER', 'tokens have no issuer here: the CA is started without --jwt-issuer');
    return { status: 200, body: discoveryDocument(issuer), headers: { 'cache-control': 'max-age=60' } };
  }

  #trust(): { trust: JwtTrust } | { reply: Reply } {
    const trust = this.#options.trust();
    if (trust === undefined) return { reply: unavailable('the keys of the trust domain are not known yet') };
    if (mayJudge(trust, this.#options.now())) return { trust };
    const since = new Date(trust.validUntil).toISOString();
    return { reply: unavailable(`the list of revocations was to be replaced by ${since}, and no newer one has come`) };
  }
}

function isAudience(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= MAX_AUDIENCE_LENGTH && !/\p{Cc}/u.test(value);
}

function isAudiences(value: unknown): value is string[] {
  return Array.isArray(value) && value.length > 0 && value.length <= MAX_AUDIENCES && value.every(isAudience) && !isTooMuchAudience(value);
}

/** The reason stays in the log. */
function notIssued(error: unknown): Reply {
  switch (error instanceof HandfastError ? error.code : undefined) {
    case 'IDENTITY_BLOCKED':
      return refused(403, 'IDENTITY_BLOCKED', "this workload's identity has been blocked: nothing is issued to it");
    case 'TOKEN_REFUSED':
    case 'IDENTITY_MISMATCH':
      return refused(403, 'NOT_ISSUED', 'no JWT-SVID is issued to this workload');
    case 'RATE_LIMITED':
      return tooOften(1_000);
    default:
      return unavailable('no JWT-SVID can be had at the moment');
  }
}
