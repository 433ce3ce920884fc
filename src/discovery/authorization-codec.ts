// Between the authorization model and its wire form, istio.security.Authorization. The one parser for it.

import { HandfastError } from '../errors.ts';
import {
  type Authorization,
  type AuthorizationMatch,
  authorizationActions,
  authorizationKey,
  authorizationScopes,
  type StringMatch,
} from '../policy/authorization.ts';
import { type IpBlock, ipBlockOf } from '../policy/ip-blocks.ts';
import * as wire from '../wire/gen/istio/security/authorization.ts';

export function encodeAuthorization(policy: Authorization): Uint8Array {
  return wire.Authorization.encode({
    name: policy.name,
    namespace: policy.namespace,
    scope: wire.Scope[policy.scope],
    action: wire.Action[policy.action],
    rules: policy.rules.map((rule) => ({ clauses: rule.map((clause) => ({ matches: clause.map(matchToWire) })) })),
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

function matchToWire(match: AuthorizationMatch): wire.Match {
  return {
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
