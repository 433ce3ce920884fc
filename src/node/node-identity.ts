// A node's own certificate: proven once by a join token, kept in a file with its key, renewed at half life over the connection it secures.

import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { Backoff } from '../backoff.ts';
import { CaClient } from '../ca/client.ts';
import { AlarmClock } from '../discovery/alarm-clock.ts';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { Snapshot } from '../snapshot.ts';
import { createCsr } from '../spiffe/csr.ts';
import type { Identity } from '../spiffe/identity.ts';
import { checkOwnCertificate } from '../spiffe/own-certificate.ts';
import { generateP256, pkcs8Pem } from '../spiffe/p256.ts';
import { pemBlocks } from '../spiffe/pem.ts';
import { firstRootChanged } from '../spiffe/trust-bundle.ts';
import { chainsTo, parseX509Svid, type X509Svid } from '../spiffe/x509-svid.ts';
import { readPrivate, replacePrivate } from '../store/state-file.ts';
import type { GrpcTarget } from '../wire/grpc-target.ts';
import type { NodeTrust } from './node-trust.ts';

export interface NodeIdentityOptions {
  /** Where key and chain are kept (0600). */
  readonly path: string;
  /** The CA, reached with the identity in `identity` as soon as there is one. */
  readonly target: GrpcTarget;
  readonly identity: Snapshot<Identity>;
  readonly trust: Snapshot<NodeTrust>;
  /** A file with a join token; only needed where there is no certificate yet, or it has expired. */
  readonly joinTokenFile: string | undefined;
  readonly log: Log;
  readonly now: () => number;
  readonly signal: AbortSignal;
}

/** Puts the first certificate into `identity` and keeps it fresh until the signal aborts. Throws JOIN_TOKEN_REFUSED, STATE_INVALID or CONFIG_INVALID with the way out. */
export async function maintainNodeIdentity(options: NodeIdentityOptions): Promise<void> {
  const client = new CaClient(options.target);
  const clock = new AlarmClock();
  const publish = (svid: X509Svid) => {
    const bundles = options.trust.current?.bundles;
    if (bundles === undefined || !chainsTo(svid.certificates, bundles.own))
      throw new HandfastError(
        'UNAVAILABLE',
        `the node's certificate ${svid.serial} does not chain to the trust bundle: if the CA was made anew, remove ${dirname(options.path)} and join again`,
      );
    options.identity.replace(Object.freeze({ svid, bundles }));
  };
  const unsubscribe = options.trust.subscribe(({ bundles }) => {
    const { current } = options.identity;
    if (current === undefined || bundles === current.bundles) return;
    if (firstRootChanged(current.bundles, bundles)) clock.ring();
    if (chainsTo(current.svid.certificates, bundles.own)) options.identity.replace(Object.freeze({ svid: current.svid, bundles }));
  });
  options.signal.addEventListener(
    'abort',
    () => {
      unsubscribe();
      client.close();
    },
    { once: true },
  );
  const kept = await readKept(options);
  publish(kept ?? (await join(client, options)));
  void keepFresh(client, { options, clock, publish });
}

async function readKept({ path, now }: NodeIdentityOptions): Promise<X509Svid | undefined> {
  const text = await readPrivate(path);
  if (text === undefined) return undefined;
  try {
    const blocks = pemBlocks(text);
    const of = (wanted: RegExp) =>
      blocks
        .filter(({ label }) => wanted.test(label))
        .map((block) => block.text)
        .join('');
    const svid = parseX509Svid({ key: of(/KEY/), chain: of(/^CERTIFICATE$/) });
    return svid.notAfter > now() ? svid : undefined;
  } catch (cause) {
    throw new HandfastError('STATE_INVALID', `${path}: ${messageOf(cause)}; remove it and join again with a new join token`, { cause });
  }
}

async function join(client: CaClient, options: NodeIdentityOptions): Promise<X509Svid> {
  const { joinTokenFile, path } = options;
  if (joinTokenFile === undefined) {
    const how = 'make one with `handfast join-token create` beside the CA and give its file by --join-token-file';
    throw new HandfastError('CONFIG_INVALID', `this node has no living certificate in ${path}, and no join token: ${how}`);
  }
  const joinToken = (
    await readFile(joinTokenFile, 'utf8').catch((cause) => {
      throw new HandfastError('CONFIG_INVALID', `join token file: ${messageOf(cause)}`, { cause });
    })
  ).trim();
  const svid = await issue(options, (csr) => client.join({ joinToken, csr }));
  options.log.info({ spiffeId: svid.id.uri, serial: svid.serial }, 'node joined');
  return svid;
}

async function keepFresh(
  client: CaClient,
  { options, clock, publish }: { options: NodeIdentityOptions; clock: AlarmClock; publish: (svid: X509Svid) => void },
): Promise<void> {
  const { identity, log, now, signal } = options;
  const backoff = new Backoff({ baseMs: 1_000, maxMs: 60_000 });
  while (!signal.aborted) {
    await clock.waitUntil(halfLife(identity.current?.svid, now()), { now, signal });
    while (!signal.aborted) {
      try {
        // A node that slept past its certificate's end has to join again, if it has been given a new token.
        const alive = now() <= (identity.current?.svid.notAfter ?? 0);
        const svid = alive ? await issue(options, (csr) => client.renew({ csr })) : await join(client, options);
        publish(svid);
        backoff.reset();
        log.info({ spiffeId: svid.id.uri, serial: svid.serial }, 'node certificate renewed');
        break;
      } catch (error) {
        const waitMs = backoff.next();
        const dies = new Date(identity.current?.svid.notAfter ?? 0).toISOString();
        log.error({ reason: messageOf(error), retryInMs: Math.round(waitMs), certificateDies: dies }, 'node certificate not renewed');
        await clock.wait(waitMs, signal);
      }
    }
  }
}

/** The key is kept before the certificate is used: a node that lost it would have to join again. */
async function issue(options: NodeIdentityOptions, ask: (csr: string) => Promise<{ chain: string }>): Promise<X509Svid> {
  const keys = await generateP256();
  const { chain } = await ask(createCsr(keys));
  const key = pkcs8Pem(keys.privateKey);
  const svid = parseX509Svid({ chain, key });
  // An answer that is of no use must not replace one that is.
  checkOwnCertificate(svid, options.now());
  await replacePrivate(options.path, key + chain);
  return svid;
}

/** When half of a certificate's time from now is over, in Unix milliseconds; at most half of its whole life, whatever our clock says. */
function halfLife(svid: X509Svid | undefined, now: number): number {
  if (svid === undefined) return now;
  return now + Math.max(0, Math.min(svid.notAfter - now, svid.notAfter - svid.notBefore)) / 2;
}
