// The CA's own certificate, for its TLS listener: made by itself, in memory alone, and again at half life or below a new root.

import { messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { generateP256, pkcs8Pem } from '../spiffe/p256.ts';
import { caId } from '../spiffe/system-ids.ts';
import { parseTrustBundle, trustBundles } from '../spiffe/trust-bundle.ts';
import { parseX509Svid } from '../spiffe/x509-svid.ts';
import { type Authority, OWN_PURPOSE } from './authority.ts';

const CHECK_EVERY_MS = 10_000;

/** Keeps the identity fresh until the signal aborts. */
export async function ownIdentity(options: {
  authority: Authority;
  dnsNames: readonly string[];
  log: Log;
  now: () => number;
  signal: AbortSignal;
}): Promise<Snapshot<Identity>> {
  const { authority, log, now, signal } = options;
  const identity = new Snapshot<Identity>(await issue(options));
  let busy = false;
  let again = false;
  const renew = async () => {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      identity.replace(await issue(options));
    } catch (error) {
      log.error({ reason: messageOf(error) }, "the CA's own certificate was not renewed");
    } finally {
      busy = false;
      // What changed meanwhile must not be missed.
      if (again) {
        again = false;
        void renew();
      }
    }
  };
  const unsubscribe = authority.trust.subscribe(({ bundlePem }, previous) => {
    const serial = identity.current?.svid.serial ?? '';
    if (bundlePem !== previous?.bundlePem || authority.revocations.certificates.has(serial)) void renew();
  });
  const timer = setInterval(() => {
    const { svid } = identity.current ?? {};
    if (svid === undefined || now() > (svid.notBefore + svid.notAfter) / 2) void renew();
  }, CHECK_EVERY_MS);
  timer.unref();
  signal.addEventListener(
    'abort',
    () => {
      clearInterval(timer);
      unsubscribe();
    },
    { once: true },
  );
  return identity;
}

async function issue({ authority, dnsNames }: { authority: Authority; dnsNames: readonly string[] }): Promise<Identity> {
  const id = caId(authority.trustDomain);
  const keys = await generateP256();
  const { chain } = await authority.issue({ id, publicKey: keys.publicKey, node: 'ca', purpose: OWN_PURPOSE, dnsNames });
  const [leaf, intermediates, bundle] = chain;
  const svid = parseX509Svid({ chain: leaf + intermediates, key: pkcs8Pem(keys.privateKey) });
  return Object.freeze({ svid, bundles: trustBundles(parseTrustBundle(bundle, id.trustDomain)) });
}
