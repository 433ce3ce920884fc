// The fields of an AuthorizationPolicy that are of HTTP, and whether a request has them.

import type { HttpRequestFacts } from './http-request.ts';
import { matchesPathTemplate } from './path-template.ts';
import { matchesText, type StringMatch } from './string-match.ts';

export type PathMatch = StringMatch | { readonly kind: 'template'; readonly value: string };

/** A header by its name in lower case. One of the values must match it, and none of the others; one that is absent is matched by nothing. */
export interface HeaderMatch {
  readonly name: string;
  readonly values: readonly StringMatch[];
  readonly notValues: readonly StringMatch[];
}

/** A claim of the token by its path, such as `['realm', 'roles']`: a text, or a list of which one must match. */
export interface ClaimMatch {
  readonly path: readonly string[];
  readonly values: readonly StringMatch[];
  readonly notValues: readonly StringMatch[];
}

/** As in AuthorizationMatch: all the fields that are not empty, and none of a `not` field's values. `hosts` are in lower case. */
export interface HttpMatch {
  readonly hosts: readonly StringMatch[];
  readonly notHosts: readonly StringMatch[];
  readonly methods: readonly StringMatch[];
  readonly notMethods: readonly StringMatch[];
  readonly paths: readonly PathMatch[];
  readonly notPaths: readonly PathMatch[];
  readonly requestPrincipals: readonly StringMatch[];
  readonly notRequestPrincipals: readonly StringMatch[];
  readonly audiences: readonly StringMatch[];
  readonly notAudiences: readonly StringMatch[];
  readonly presenters: readonly StringMatch[];
  readonly notPresenters: readonly StringMatch[];
  readonly headers: readonly HeaderMatch[];
  readonly claims: readonly ClaimMatch[];
}

/** To begin a match with. */
export const emptyHttpMatch: HttpMatch = Object.freeze({
  hosts: [],
  notHosts: [],
  methods: [],
  notMethods: [],
  paths: [],
  notPaths: [],
  requestPrincipals: [],
  notRequestPrincipals: [],
  audiences: [],
  notAudiences: [],
  presenters: [],
  notPresenters: [],
  headers: [],
  claims: [],
});

/** One reading of a request's path and host. */
export interface ReadRequest extends Omit<HttpRequestFacts, 'paths'> {
  readonly path: string;
}

/** `action`: what a match leads to. Where applications may see more than one thing, a DENY matches by any of them, and an ALLOW by none that is not the whole. */
export function matchesRequest(
  match: HttpMatch,
  { method, path, host, header, alike, auth }: ReadRequest,
  action: 'ALLOW' | 'DENY',
): boolean {
  const texts = (wanted: readonly StringMatch[], unwanted: readonly StringMatch[], values: readonly string[]) =>
    (wanted.length === 0 || values.some((value) => wanted.some((one) => matchesText(one, value)))) &&
    !values.some((value) => unwanted.some((one) => matchesText(one, value)));
  const isPath = (one: PathMatch) => (one.kind === 'template' ? matchesPathTemplate(one.value, path) : matchesText(one, path));
  return (
    texts(match.methods, match.notMethods, [method]) &&
    (match.paths.length === 0 || match.paths.some(isPath)) &&
    !match.notPaths.some(isPath) &&
    texts(match.hosts, match.notHosts, [host]) &&
    texts(match.requestPrincipals, match.notRequestPrincipals, [auth?.principal ?? '']) &&
    texts(match.audiences, match.notAudiences, auth?.audiences ?? []) &&
    texts(match.presenters, match.notPresenters, [auth?.presenter ?? '']) &&
    match.headers.every((one) => matchesHeader(one, { came: header(one.name), alike: alike(one.name) }, action)) &&
    match.claims.every(({ path: claim, values, notValues }) => texts(values, notValues, claimAt(auth?.claims, claim)))
  );
}

/** One that is there says something, even if that is nothing. One that came several times is one value, joined by commas, as in Envoy; or each of them, to applications that take the first or the last. */
function matchesHeader(
  { values, notValues }: HeaderMatch,
  { came, alike }: { came: readonly string[]; alike: readonly string[] },
  action: 'ALLOW' | 'DENY',
): boolean {
  const whole = came.length === 0 ? [] : [came.join(',')];
  const any = [...whole, ...alike];
  const is = (readings: readonly string[]) => (one: StringMatch) =>
    readings.some((value) => one.kind === 'presence' || matchesText(one, value));
  const [wanted, unwanted] = action === 'DENY' ? [any, whole] : [whole, any];
  return (values.length === 0 || values.some(is(wanted))) && !notValues.some(is(unwanted));
}

/** Names are the same in both cases; some take the port and the root's dot for a part of one, and some do not. */
export function hostReadings(host: string): string[] {
  const asSent = host.toLowerCase();
  const named = asSent.replace(/:\d*$/, '');
  return [...new Set([asSent, named, named.replace(/\.+$/, '')])];
}

/** OAuth's, as Istio has them. */
const SPACE_DELIMITED = ['scope', 'permission'];

/** What is a text, or a list of texts; everything else is matched by nothing. */
function claimAt(claims: Readonly<Record<string, unknown>> | undefined, path: readonly string[]): string[] {
  let at: unknown = claims;
  for (const key of path) {
    if (typeof at !== 'object' || at === null || Array.isArray(at) || !Object.hasOwn(at, key)) return [];
    at = Reflect.get(at, key);
  }
  if (typeof at === 'string') return path.length === 1 && SPACE_DELIMITED.includes(path[0] ?? '') ? at.split(' ') : [at];
  return Array.isArray(at) ? at.filter((value): value is string => typeof value === 'string') : [];
}

/** How many values there are in it. */
export function httpValuesIn(match: HttpMatch | undefined): number {
  if (match === undefined) return 0;
  const { headers, claims, ...lists } = match;
  const named = [...headers, ...claims].reduce((sum, { values, notValues }) => sum + values.length + notValues.length, 0);
  return Object.values(lists).reduce((sum: number, values: readonly unknown[]) => sum + values.length, named);
}

/** A match with what is of HTTP in it, if anything is. */
export function withHttp<T extends object>(match: T, http: HttpMatch): T & { readonly http?: HttpMatch } {
  return httpValuesIn(http) === 0 ? match : { ...match, http };
}
