// Whose token is it, and is it good? Istio's RequestAuthentication for one request: without a token it passes as nobody's, a token that is not good is refused, whatever else may hold
// (https://istio.io/latest/docs/reference/config/security/request_authentication/).

import { createHash } from 'node:crypto';
import { HandfastError, messageOf } from '../errors.ts';
import { parseJwks, readJws, verifyJws } from '../spiffe/jwt.ts';
import type { HttpRequestFacts, RequestAuth } from './http-request.ts';
import type { JwtRule } from './jwt-rule.ts';
import { type Field, type FoundToken, findTokens, type TokenCarrier, withoutTokens } from './request-tokens.ts';

/** `remove`: names in lower case that do not go on to the application; `add`: what does; `query`: what goes on instead of the one that came. */
export type Authenticated =
  | {
      readonly auth: HttpRequestFacts['auth'];
      readonly remove: readonly string[];
      readonly add: readonly Field[];
      readonly query?: string;
    }
  | { readonly refused: { readonly reason: string; readonly fields: readonly Field[] } };

/** OAuth's access tokens have a type of their own (RFC 9068). */
const TYPES = ['JWT', 'jwt', 'JOSE', 'at+jwt', 'application/at+jwt'];
/** Clocks differ: for a token from a little ahead of us, as in Envoy. It is good for no second more at its end. */
const LEEWAY_MS = 60_000;

/** `now` in Unix milliseconds. */
export function authenticateRequest(rules: readonly JwtRule[], carrier: TokenCarrier, now: number): Authenticated {
  // Whoever calls must not say them itself, token or not.
  const ours = rules.flatMap(({ outputPayloadToHeader, outputClaims }) => [
    ...(outputPayloadToHeader === undefined ? [] : [outputPayloadToHeader]),
    ...outputClaims.map(({ header }) => header),
  ]);
  const tokens = findTokens(rules, carrier);
  const [first, ...others] = tokens;
  if (first === undefined) return { auth: undefined, remove: ours, add: [] };
  // Nobody could say whose request it is.
  if (others.some(({ text }) => text !== first.text)) return refused('more than one token');
  try {
    const { rule, claims } = verifiedBy(first, now);
    const kept = rule.forwardOriginalToken ? { remove: [], add: [] } : withoutTokens(tokens, carrier);
    return {
      auth: authOf(claims),
      remove: [...ours, ...kept.remove],
      add: [...kept.add, ...outputOf(rule, first.text, claims)],
      ...('query' in kept ? { query: kept.query } : {}),
    };
  } catch (error) {
    if (!(error instanceof HandfastError)) throw error;
    return refused(error.message);
  }
}

function refused(reason: string): Authenticated {
  return { refused: { reason: `token refused: ${reason}`, fields: [['www-authenticate', 'Bearer error="invalid_token"']] } };
}

type Claims = Readonly<Record<string, unknown>>;

/** The rule of its issuer that it is good by. Throws JWT_INVALID. */
function verifiedBy({ text, rules }: FoundToken, now: number): { rule: JwtRule; claims: Claims } {
  const { iss } = readJws(text, { types: TYPES }).claims;
  const ofIssuer = rules.filter(({ issuer }) => issuer === iss);
  let last: unknown = new HandfastError('JWT_INVALID', `issuer ${JSON.stringify(iss)?.slice(0, 200)} is nobody's whose tokens count here`);
  for (const rule of ofIssuer) {
    try {
      const claims = signedClaims(rule, text);
      judge(claims, { rule, now });
      return { rule, claims };
    } catch (error) {
      last = error;
    }
  }
  throw last;
}

function judge({ exp, nbf, iat, aud }: Claims, { rule, now }: { rule: JwtRule; now: number }): void {
  const refuse = (reason: string) => new HandfastError('JWT_INVALID', reason);
  // Written so that what is no number is refused.
  if (typeof exp !== 'number' || !(now < exp * 1000)) throw refuse('expired, or without an expiry');
  for (const from of [nbf, iat])
    if (from !== undefined && !(typeof from === 'number' && now >= from * 1000 - LEEWAY_MS)) throw refuse('not valid yet');
  if (rule.audiences.length > 0 && !audiencesIn(aud).some((audience) => rule.audiences.includes(audience)))
    throw refuse(`its audience is none of ${rule.audiences.join(', ')}`);
}

function audiencesIn(aud: unknown): string[] {
  const all: readonly unknown[] = Array.isArray(aud) ? aud : [aud];
  return all.filter((audience): audience is string => typeof audience === 'string' && audience !== '');
}

function authOf(claims: Claims): RequestAuth {
  const { iss, sub, aud, azp } = claims;
  return {
    principal: typeof iss === 'string' && typeof sub === 'string' && sub !== '' ? `${iss}/${sub}` : '',
    audiences: audiencesIn(aud),
    presenter: typeof azp === 'string' ? azp : '',
    claims,
  };
}

const MAX_REMEMBERED = 1_000;
const remembered = new WeakMap<JwtRule, Map<string, Claims>>();
const keySets = new WeakMap<JwtRule, ReturnType<typeof parseJwks>>();

/** The signature is verified once for each token: a caller sends the same one with every request. A rule that changes is another object, with nothing remembered. */
function signedClaims(rule: JwtRule, text: string): Claims {
  const known = remembered.get(rule) ?? new Map<string, Claims>();
  remembered.set(rule, known);
  const key = createHash('sha256').update(text).digest('base64');
  const before = known.get(key);
  if (before !== undefined) return before;
  const { claims } = verifyJws(readJws(text, { types: TYPES }), keysOf(rule), { onlyKey: true });
  if (known.size >= MAX_REMEMBERED) known.clear();
  known.set(key, Object.freeze(claims));
  return claims;
}

function keysOf(rule: JwtRule): ReturnType<typeof parseJwks> {
  if (rule.jwks === '') throw new HandfastError('JWT_INVALID', `the keys of issuer ${rule.issuer} have not been had yet`);
  let keys = keySets.get(rule);
  if (keys === undefined) {
    try {
      keys = parseJwks(rule.jwks);
    } catch (cause) {
      throw new HandfastError('JWT_INVALID', `the keys of issuer ${rule.issuer}: ${messageOf(cause)}`, { cause });
    }
    keySets.set(rule, keys);
  }
  return keys;
}

function outputOf(rule: JwtRule, text: string, claims: Claims): Field[] {
  const fields: Field[] = [];
  if (rule.outputPayloadToHeader !== undefined) fields.push([rule.outputPayloadToHeader, text.split('.')[1] ?? '']);
  for (const { header, claim } of rule.outputClaims) {
    const value = fieldValue(claimAt(claims, claim));
    if (value !== undefined) fields.push([header, value]);
  }
  return fields;
}

function claimAt(claims: Claims, path: readonly string[]): unknown {
  let at: unknown = claims;
  for (const key of path) at = typeof at === 'object' && at !== null && Object.hasOwn(at, key) ? Reflect.get(at, key) : undefined;
  return at;
}

/** Texts, whole numbers and truth values, as bytes of UTF-8. One that would be more than a field's value is left out. */
function fieldValue(value: unknown): string | undefined {
  if (typeof value !== 'string' && typeof value !== 'boolean' && !Number.isSafeInteger(value)) return undefined;
  const text = Buffer.from(String(value), 'utf8').toString('latin1');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what it looks for.
  return /[\x00-\x1f\x7f]/.test(text) || text.trim() !== text ? undefined : text;
}
