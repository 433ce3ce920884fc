// What relying parties that know OIDC need: the keys of the trust domain, and the document that says where they are.

import type { JwtTrust } from '../spiffe/jwt-trust.ts';
import { isJsonObject, parseStrictObject } from '../spiffe/strict-json.ts';

export const JWKS_PATH = '/v1/jwks';
export const DISCOVERY_PATH = '/.well-known/openid-configuration';

/** What a key is to somebody who verifies by it; whatever else stands beside is SPIFFE's and ours. */
const MEMBERS = ['kty', 'crv', 'x', 'y', 'n', 'e', 'kid', 'alg'];

/** `use` is `sig`: relying parties do not know SPIFFE's `jwt-svid`. */
export function publishedKeys({ texts, trustDomain }: JwtTrust): object {
  const { keys } = parseStrictObject(texts.get(trustDomain) ?? '{"keys":[]}');
  const published = (Array.isArray(keys) ? keys : []).flatMap((key: unknown) =>
    isJsonObject(key)
      ? [{ ...Object.fromEntries(MEMBERS.flatMap((name) => (key[name] === undefined ? [] : [[name, key[name]]]))), use: 'sig' }]
      : [],
  );
  return { keys: published };
}

/** OpenID Connect Discovery 1.0, section 3, without what belongs to logging people in. */
export function discoveryDocument(issuer: string): object {
  return {
    issuer,
    jwks_uri: `${issuer}${JWKS_PATH}`,
    response_types_supported: ['id_token'],
    subject_types_supported: ['public'],
    id_token_signing_alg_values_supported: ['ES256'],
  };
}
