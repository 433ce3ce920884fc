// security.istio.io RequestAuthentication, as Istio validates it (https://istio.io/latest/docs/reference/config/security/request_authentication/).

import { z } from 'zod';
import { messageOf } from '../../errors.ts';
import { canonicalJwks } from '../../spiffe/canonical-jwks.ts';
import type { KeySource, RequestAuthentication, WrittenJwtRule } from '../jwt-rules.ts';
import { keysUrlProblem } from '../keys-url.ts';
import { enforcedMeta, matchLabelsSelector, policyMetaOf, selectorOf } from './policy-meta.ts';
import { allUnsupported, unsupported } from './unsupported.ts';

const MAX_RULES = 100;
const MAX_VALUES = 100;

const text = z.string().min(1, 'is empty');
const texts = z.array(text).max(MAX_VALUES, `more than ${MAX_VALUES} values`).default([]);
const FIELD_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$/;

const fieldName = text.regex(FIELD_NAME, 'is no name of a header').transform((name) => name.toLowerCase());

/** What says where a message goes, how it is framed or who called must not be somebody's claim. */
const RESERVED = [
  ...['host', 'connection', 'content-length', 'content-type', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'expect', 'keep-alive'],
  ...['proxy-connection', 'authorization', 'cookie', 'x-forwarded-client-cert', 'x-request-id', 'x-forwarded-for', 'forwarded'],
];
const outputName = fieldName.refine((name) => !RESERVED.includes(name.replaceAll('_', '-')), 'is a header that no claim may stand in');

const location = z.strictObject({ name: fieldName, prefix: z.string().max(MAX_VALUES).default('') });

const rule = z
  .strictObject({
    issuer: text,
    audiences: texts,
    jwks: z.string().optional(),
    jwksUri: z.string().optional(),
    fromHeaders: z.array(location).max(MAX_VALUES).default([]),
    fromParams: texts,
    fromCookies: texts,
    outputPayloadToHeader: outputName.optional(),
    outputClaimToHeaders: z
      .array(z.strictObject({ header: outputName, claim: text }))
      .max(MAX_VALUES)
      .default([]),
    forwardOriginalToken: z.boolean().default(false),
    timeout: unsupported('keys are fetched by control, once for everybody, and given 5 s'),
    spaceDelimitedClaims: unsupported('claims are compared as they stand, or member by member where they are lists'),
  })
  .superRefine((of, context) => {
    const refuse = (field: string, message: string) => context.addIssue({ code: 'custom', path: [field], message });
    if (of.jwks !== undefined && of.jwksUri !== undefined) refuse('jwksUri', 'stands beside jwks: give one of them');
    if (of.jwks !== undefined) {
      try {
        canonicalJwks(of.jwks);
      } catch (error) {
        refuse('jwks', messageOf(error));
      }
    } else {
      const problem = keysUrlProblem(of.jwksUri ?? of.issuer);
      if (problem !== undefined)
        refuse(of.jwksUri === undefined ? 'issuer' : 'jwksUri', of.jwksUri === undefined ? `${problem}; or give jwks or jwksUri` : problem);
    }
  });

const spec = z.strictObject({
  selector: matchLabelsSelector.optional(),
  jwtRules: z.array(rule).max(MAX_RULES, `more than ${MAX_RULES} rules: split the policy`).default([]),
  ...allUnsupported(['targetRef', 'targetRefs'], 'there are no gateways or waypoints here; use selector'),
});

export const requestAuthenticationSchema = z.strictObject({
  apiVersion: z.enum(['security.istio.io/v1', 'security.istio.io/v1beta1']),
  kind: z.literal('RequestAuthentication'),
  metadata: enforcedMeta,
  spec,
  status: z.unknown().optional(),
});

export function requestAuthenticationOf({ metadata, spec: of }: z.output<typeof requestAuthenticationSchema>): RequestAuthentication {
  return { ...policyMetaOf(metadata), selector: selectorOf(of.selector), rules: of.jwtRules.map(ruleOf) };
}

function ruleOf(of: z.output<typeof rule>): WrittenJwtRule {
  return {
    issuer: of.issuer,
    audiences: of.audiences,
    keys: keysOf(of),
    fromHeaders: of.fromHeaders,
    fromParams: of.fromParams,
    fromCookies: of.fromCookies,
    outputPayloadToHeader: of.outputPayloadToHeader,
    // A claim within a claim is written with a dot, as in Istio.
    outputClaims: of.outputClaimToHeaders.map(({ header, claim }) => ({ header, claim: claim.split('.') })),
    forwardOriginalToken: of.forwardOriginalToken,
  };
}

function keysOf({ jwks, jwksUri, issuer }: z.output<typeof rule>): KeySource {
  if (jwks !== undefined) return { jwks: canonicalJwks(jwks) };
  return jwksUri === undefined ? { issuer } : { url: jwksUri };
}
