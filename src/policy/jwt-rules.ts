// RequestAuthentications, and the rules of theirs that hold for a workload.

import type { JwtRule } from './jwt-rule.ts';
import { type PolicyObject, sourceOf } from './policy-object.ts';

/** Where an issuer's keys come from: they stand in the policy, or are fetched by control from a URL; `issuer`: from where the issuer's own metadata says. */
export type KeySource = { readonly jwks: string } | { readonly url: string } | { readonly issuer: string };

export interface WrittenJwtRule extends Omit<JwtRule, 'jwks' | 'source'> {
  readonly keys: KeySource;
}

/** A RequestAuthentication, parsed. */
export interface RequestAuthentication extends PolicyObject {
  readonly rules: readonly WrittenJwtRule[];
}

/** What was fetched, by `keySourceId`. */
export type FetchedKeys = ReadonlyMap<string, string>;

/** Undefined for keys that stand in the policy. */
export function keySourceId(keys: KeySource): string | undefined {
  if ('jwks' in keys) return undefined;
  return 'url' in keys ? `url ${keys.url}` : `issuer ${keys.issuer}`;
}

/** Of one workload: all of its policies travel in one message, and so do all workloads'. */
const MAX_KEYS_BYTES = 512 * 1024;

/** All that hold add up, as in Istio. What has not been fetched yet, and what is too much, is empty: no token of that issuer is good. */
export function jwtRulesOf(policies: readonly RequestAuthentication[], fetched: FetchedKeys): JwtRule[] {
  let bytes = 0;
  return policies.flatMap((policy) => {
    const source = sourceOf('RequestAuthentication', policy);
    return policy.rules.map(({ keys, ...rule }): JwtRule => {
      const id = keySourceId(keys);
      const jwks = 'jwks' in keys ? keys.jwks : (fetched.get(id ?? '') ?? '');
      bytes += jwks.length;
      return { ...rule, jwks: bytes > MAX_KEYS_BYTES ? '' : jwks, source };
    });
  });
}
