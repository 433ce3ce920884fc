// Where tokens stand in a request: header fields, parameters of the query, cookies; and the request without them.

import type { JwtRule, TokenHeader } from './jwt-rule.ts';

export type Field = readonly [name: string, value: string];

/** What a request brings along: all values of a field by its name in lower case, and the query with its `?`. */
export interface TokenCarrier {
  readonly values: (name: string) => readonly string[];
  readonly query: string;
}

type Place =
  | { readonly kind: 'header'; readonly name: string }
  | { readonly kind: 'param'; readonly name: string }
  | { readonly kind: 'cookie'; readonly name: string };

/** `rules`: those that look for tokens where it was found; no other's issuer counts there. */
export interface FoundToken {
  readonly text: string;
  readonly place: Place;
  readonly rules: readonly JwtRule[];
}

const BEARER: TokenHeader = { name: 'authorization', prefix: 'Bearer ' };
const ACCESS_TOKEN = 'access_token';

export function findTokens(rules: readonly JwtRule[], carrier: TokenCarrier): FoundToken[] {
  const found = new Map<string, { text: string; place: Place; rules: JwtRule[] }>();
  const note = (text: string, place: Place, rule: JwtRule) => {
    const key = JSON.stringify([place.kind, place.name, text]);
    const known = found.get(key);
    if (known === undefined) found.set(key, { text, place, rules: [rule] });
    else if (!known.rules.includes(rule)) known.rules.push(rule);
  };
  // Read once, and only where somebody looks there.
  let query: URLSearchParams | undefined;
  for (const rule of rules) {
    const { headers, params, cookies } = placesOf(rule);
    for (const header of headers)
      for (const value of carrier.values(header.name)) {
        const text = afterPrefix(value, header.prefix);
        if (text !== undefined) note(text, { kind: 'header', name: header.name }, rule);
      }
    if (carrier.query !== '')
      for (const name of params) {
        query ??= new URLSearchParams(carrier.query);
        for (const text of paramsIn(query, name)) note(text, { kind: 'param', name }, rule);
      }
    for (const name of cookies) for (const text of cookiesIn(carrier, name)) note(text, { kind: 'cookie', name }, rule);
  }
  return [...found.values()];
}

function placesOf({ fromHeaders, fromParams, fromCookies }: JwtRule): {
  headers: readonly TokenHeader[];
  params: readonly string[];
  cookies: readonly string[];
} {
  if (fromHeaders.length + fromParams.length + fromCookies.length === 0) return { headers: [BEARER], params: [ACCESS_TOKEN], cookies: [] };
  return { headers: fromHeaders, params: fromParams, cookies: fromCookies };
}

/** Schemes are the same in both cases (RFC 9110, 11.1). */
function afterPrefix(value: string, prefix: string): string | undefined {
  if (value.slice(0, prefix.length).toLowerCase() !== prefix.toLowerCase()) return undefined;
  const text = value.slice(prefix.length).trim();
  return text === '' ? undefined : text;
}

function paramsIn(query: URLSearchParams, name: string): string[] {
  return query.getAll(name).filter((value) => value !== '');
}

function cookiePairs(carrier: TokenCarrier): string[] {
  return carrier
    .values('cookie')
    .flatMap((value) => value.split(';'))
    .map((pair) => pair.trim())
    .filter((pair) => pair !== '');
}

function cookiesIn(carrier: TokenCarrier, name: string): string[] {
  return cookiePairs(carrier)
    .filter((pair) => pair.startsWith(`${name}=`))
    .map((pair) => pair.slice(name.length + 1))
    .filter((value) => value !== '');
}

/** What goes on in a request whose tokens are not for the application. */
export function withoutTokens(
  tokens: readonly FoundToken[],
  carrier: TokenCarrier,
): { remove: readonly string[]; add: readonly Field[]; query?: string } {
  const names = (kind: Place['kind']) => new Set(tokens.filter(({ place }) => place.kind === kind).map(({ place }) => place.name));
  const [headers, params, cookies] = [names('header'), names('param'), names('cookie')];
  const left = cookiePairs(carrier).filter((pair) => !cookies.has(pair.slice(0, Math.max(0, pair.indexOf('=')))));
  return {
    remove: [...headers, ...(cookies.size > 0 ? ['cookie'] : [])],
    add: cookies.size > 0 && left.length > 0 ? [['cookie', left.join('; ')]] : [],
    ...(params.size > 0 ? { query: withoutParams(carrier.query, params) } : {}),
  };
}

/** Pair by pair, so that the others stay as they were written. */
function withoutParams(query: string, names: ReadonlySet<string>): string {
  const left = query
    .slice(1)
    .split('&')
    .filter((pair) => ![...new URLSearchParams(pair).keys()].some((name) => names.has(name)));
  return left.length === 0 ? '' : `?${left.join('&')}`;
}
