// Between the authorization model and its wire form, istio.security.Authorization. The one parser for it.

import { HandfastError } from '../errors.ts';
import {
  type Authorization,
  type AuthorizationMatch,
  authorizationActions,
  authorizationKey,
  authorizationScopes,
  emptyMatch,
} from '../policy/authorization.ts';
import type { HttpMatch, PathMatch } from '../policy/http-match.ts';
import { type IpBlock, ipBlockOf } from '../policy/ip-blocks.ts';
import { pathTemplateProblem } from '../policy/path-template.ts';
import type { StringMatch } from '../policy/string-match.ts';
import * as wire from '../wire/gen/istio/security/authorization.ts';

export function encodeAuthorization(policy: Authorization): Uint8Array {
  return wire.Authorization.encode({
    name: policy.name,
    namespace: policy.namespace,
    scope: wire.Scope[policy.scope],
    action: wire.Action[policy.action],
    rules: policy.rules.map((rule) => ({
      clauses: rule.map((clause) => ({ matches: clause.map((match) => matchToWire(match, policy.action)) })),
    })),
    dryRun: policy.dryRun,
  }).finish();
}

/** Throws OBJECT_INVALID for a scope, action or match that this build does not know: read as nothing, it could allow what it was to deny. */
export function decodeAuthorization(bytes: Uint8Array, resourceName: string): Authorization {
  const { name, namespace, scope, action, rules, dryRun } = wire.Authorization.decode(bytes);
  const whose = `Authorization ${namespace}/${name}`;
  const known = {
    scope: authorizationScopes.find((text) => wire.Scope[text] === scope),
    action: authorizationActions.find((text) => wire.Action[text] === action),
  };
  if (known.scope === undefined || known.action === undefined)
    throw new HandfastError('OBJECT_INVALID', `${whose}: unknown scope or action`);
  // It is looked up by its name: one under another's would hold for the wrong workloads.
  if (authorizationKey({ name, namespace }) !== resourceName)
    throw new HandfastError('OBJECT_INVALID', `the Authorization named ${resourceName} is ${namespace}/${name}`);
  const read = (matches: readonly wire.Match[]) => matches.map((match) => matchFromWire(match, whose));
  return Object.freeze({
    name,
    namespace,
    scope: known.scope,
    action: known.action,
    rules: rules.map(({ clauses }) => clauses.map(({ matches }) => read(matches))),
    dryRun,
  });
}

/**
 * What is of HTTP travels with the rest of its match as a field of ours. Beside it stands what is to be read by whoever does not know the field: nothing that ever matches for an ALLOW, and
 * for a DENY the match without HTTP, which denies more.
 */
function matchToWire({ http, ...match }: AuthorizationMatch, action: Authorization['action']): wire.Match {
  const connection = connectionToWire(match);
  if (http === undefined) return connection;
  const more = { http: httpMatchToWire(http, connection) };
  if (action === 'ALLOW') return { ...connectionToWire(emptyMatch), ...more };
  return { ...(Object.values(match).every(({ length }) => length === 0) ? connectionToWire(ANYBODY) : connection), ...more };
}

/** There is no port 0. */
const ANYBODY: AuthorizationMatch = { ...emptyMatch, notDestinationPorts: [0] };

function connectionToWire(match: AuthorizationMatch): wire.Match {
  return {
    http: undefined,
    namespaces: match.namespaces.map(textToWire),
    notNamespaces: match.notNamespaces.map(textToWire),
    principals: match.principals.map(textToWire),
    notPrincipals: match.notPrincipals.map(textToWire),
    sourceIps: match.sourceIps.map(blockToWire),
    notSourceIps: match.notSourceIps.map(blockToWire),
    destinationIps: match.destinationIps.map(blockToWire),
    notDestinationIps: match.notDestinationIps.map(blockToWire),
    destinationPorts: [...match.destinationPorts],
    notDestinationPorts: [...match.notDestinationPorts],
    serviceAccounts: [...match.serviceAccounts],
    notServiceAccounts: [...match.notServiceAccounts],
  };
}

function matchFromWire(match: wire.Match, whose: string): AuthorizationMatch {
  const texts = (values: readonly wire.StringMatch[]) => values.map((value) => textFromWire(value, whose));
  if (match.http !== undefined) {
    const { connection } = match.http;
    if (connection?.http !== undefined) throw new HandfastError('OBJECT_INVALID', `${whose}: a match within a match within a match`);
    const base = connection === undefined ? emptyMatch : matchFromWire(connection, whose);
    return { ...base, http: httpMatchFromWire(match.http, whose, texts) };
  }
  const blocks = (values: readonly wire.Address[]) => values.map(({ address, length }) => ipBlockOf(address, length));
  return {
    namespaces: texts(match.namespaces),
    notNamespaces: texts(match.notNamespaces),
    principals: texts(match.principals),
    notPrincipals: texts(match.notPrincipals),
    sourceIps: blocks(match.sourceIps),
    notSourceIps: blocks(match.notSourceIps),
    destinationIps: blocks(match.destinationIps),
    notDestinationIps: blocks(match.notDestinationIps),
    destinationPorts: match.destinationPorts,
    notDestinationPorts: match.notDestinationPorts,
    serviceAccounts: match.serviceAccounts,
    notServiceAccounts: match.notServiceAccounts,
  };
}

function httpMatchToWire(match: HttpMatch, connection: wire.Match): wire.HttpMatch {
  return {
    connection,
    hosts: match.hosts.map(textToWire),
    notHosts: match.notHosts.map(textToWire),
    methods: match.methods.map(textToWire),
    notMethods: match.notMethods.map(textToWire),
    paths: match.paths.map(pathToWire),
    notPaths: match.notPaths.map(pathToWire),
    requestPrincipals: match.requestPrincipals.map(textToWire),
    notRequestPrincipals: match.notRequestPrincipals.map(textToWire),
    audiences: match.audiences.map(textToWire),
    notAudiences: match.notAudiences.map(textToWire),
    presenters: match.presenters.map(textToWire),
    notPresenters: match.notPresenters.map(textToWire),
    headers: match.headers.map(({ name, ...rest }) => namedToWire([name], rest)),
    claims: match.claims.map(({ path, ...rest }) => namedToWire(path, rest)),
  };
}

function httpMatchFromWire(match: wire.HttpMatch, whose: string, texts: (values: readonly wire.StringMatch[]) => StringMatch[]): HttpMatch {
  const paths = (values: readonly wire.PathMatch[]) => values.map((value) => pathFromWire(value, whose));
  const named = (values: readonly wire.NamedMatch[]) =>
    values.map(({ name, values: wanted, notValues }) => {
      if (name.length === 0 || name.includes('')) throw new HandfastError('OBJECT_INVALID', `${whose}: a header or claim without a name`);
      return { name, values: texts(wanted), notValues: texts(notValues) };
    });
  return {
    hosts: texts(match.hosts),
    notHosts: texts(match.notHosts),
    methods: texts(match.methods),
    notMethods: texts(match.notMethods),
    paths: paths(match.paths),
    notPaths: paths(match.notPaths),
    requestPrincipals: texts(match.requestPrincipals),
    notRequestPrincipals: texts(match.notRequestPrincipals),
    audiences: texts(match.audiences),
    notAudiences: texts(match.notAudiences),
    presenters: texts(match.presenters),
    notPresenters: texts(match.notPresenters),
    headers: named(match.headers).map(({ name: [name = ''], ...rest }) => ({ name, ...rest })),
    claims: named(match.claims).map(({ name: path, ...rest }) => ({ path, ...rest })),
  };
}

function pathToWire(path: PathMatch): wire.PathMatch {
  return {
    matchType: path.kind === 'template' ? { $case: 'template', value: path.value } : { $case: 'text', value: textToWire(path) },
  };
}

function pathFromWire({ matchType }: wire.PathMatch, whose: string): PathMatch {
  if (matchType === undefined) throw new HandfastError('OBJECT_INVALID', `${whose}: a path of an unknown kind`);
  if (matchType.$case === 'text') return textFromWire(matchType.value, whose);
  const problem = pathTemplateProblem(matchType.value);
  if (problem !== undefined) throw new HandfastError('OBJECT_INVALID', `${whose}: ${problem}`);
  return { kind: 'template', value: matchType.value };
}

function namedToWire(
  name: readonly string[],
  { values, notValues }: { values: readonly StringMatch[]; notValues: readonly StringMatch[] },
): wire.NamedMatch {
  return { name: [...name], values: values.map(textToWire), notValues: notValues.map(textToWire) };
}

function textToWire({ kind, value }: StringMatch): wire.StringMatch {
  return { matchType: kind === 'presence' ? { $case: 'presence', value: {} } : { $case: kind, value } };
}

function textFromWire({ matchType }: wire.StringMatch, whose: string): StringMatch {
  if (matchType === undefined) throw new HandfastError('OBJECT_INVALID', `${whose}: a match of an unknown kind`);
  if (matchType.$case === 'presence') return { kind: 'presence', value: '' };
  // It would match everybody, or nobody, and none of these is what somebody has written.
  if (matchType.value === '') throw new HandfastError('OBJECT_INVALID', `${whose}: a match with an empty value`);
  return { kind: matchType.$case, value: matchType.value };
}

function blockToWire({ bytes, prefixLength }: IpBlock): wire.Address {
  return { address: Buffer.from(bytes), length: prefixLength };
}
