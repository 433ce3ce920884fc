// The SPIFFE Workload API's answers, put together from what the agent holds: DER where the standard wants DER, trust domains by their IDs.

import { createPrivateKey } from 'node:crypto';
import type { NodeTrust } from '../node/node-trust.ts';
import type { TrustBundle } from '../spiffe/trust-bundle.ts';
import type { X509Svid } from '../spiffe/x509-svid.ts';
import type {
  JWTBundlesResponse,
  ValidateJWTSVIDResponse,
  X509BundlesResponse,
  X509SVID,
  X509SVIDResponse,
} from '../wire/gen/spiffe/workload/workload.ts';

/** SVIDs whose trust domain has no bundle are left out: nobody could make use of them. */
export function x509SvidResponse(svids: readonly X509Svid[], { bundles, crl }: NodeTrust): X509SVIDResponse {
  return {
    svids: svids.flatMap((svid) => {
      const bundle = bundles.get(svid.id.trustDomain);
      return bundle === undefined ? [] : [x509Svid(svid, bundle)];
    }),
    crl: [...crl.der],
    federatedBundles: byTrustDomain(bundles.all.filter(({ trustDomain }) => trustDomain !== bundles.own.trustDomain)),
  };
}

export function x509BundlesResponse({ bundles, crl }: NodeTrust): X509BundlesResponse {
  return { bundles: byTrustDomain(bundles.all), crl: [...crl.der] };
}

/** Undefined until the keys have come: no keys would say that nobody's tokens are good. */
export function jwtBundlesResponse({ jwks }: NodeTrust): JWTBundlesResponse | undefined {
  if (jwks.size === 0) return undefined;
  return { bundles: Object.fromEntries([...jwks].map(([trustDomain, text]) => [`spiffe://${trustDomain}`, Buffer.from(text)])) };
}

export function validateJwtSvidResponse(id: string, claims: Readonly<Record<string, unknown>>): ValidateJWTSVIDResponse {
  // RFC 7519 lets one audience stand alone; a reader of the answer need know one form only.
  const { aud } = claims;
  return { spiffeId: id, claims: { ...claims, ...(typeof aud === 'string' ? { aud: [aud] } : {}) } };
}

function x509Svid(svid: X509Svid, bundle: TrustBundle): X509SVID {
  return {
    spiffeId: svid.id.uri,
    x509Svid: Buffer.concat(svid.certificates.map(({ raw }) => raw)),
    x509SvidKey: createPrivateKey(svid.keyPem).export({ type: 'pkcs8', format: 'der' }),
    bundle: der(bundle),
    hint: '',
  };
}

function byTrustDomain(bundles: readonly TrustBundle[]): { [trustDomain: string]: Buffer } {
  return Object.fromEntries(bundles.map((bundle) => [`spiffe://${bundle.trustDomain}`, der(bundle)]));
}

function der({ authorities }: TrustBundle): Buffer {
  return Buffer.concat(authorities.map(({ raw }) => raw));
}
