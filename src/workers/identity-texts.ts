// An Identity across threads: as PEM, because certificates and keys are objects of the thread that parsed them.

import type { Identity } from '../spiffe/identity.ts';
import { parseTrustBundle, trustBundles } from '../spiffe/trust-bundle.ts';
import { parseX509Svid } from '../spiffe/x509-svid.ts';
import type { IdentityTexts } from './messages.ts';

export function textsOf({ svid, bundles }: Identity): IdentityTexts {
  const others = bundles.all.filter((bundle) => bundle !== bundles.own);
  return {
    chain: svid.chainPem,
    key: svid.keyPem,
    bundles: [bundles.own, ...others].map(({ trustDomain, pem }) => ({ trustDomain, pem })),
  };
}

/** Throws SECRET_INVALID for what could not have been an Identity. */
export function identityFrom({ chain, key, bundles }: IdentityTexts): Identity {
  const [own, ...others] = bundles.map(({ trustDomain, pem }) => parseTrustBundle(pem, trustDomain));
  if (own === undefined) throw new Error('an identity without a trust bundle');
  return Object.freeze({ svid: parseX509Svid({ chain, key }), bundles: trustBundles(own, others) });
}
