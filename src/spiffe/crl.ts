// What has been revoked, as a verifier holds it: serials of certificates, and SPIFFE IDs that are blocked altogether.

import { X509Certificate } from 'node:crypto';
import { HandfastError, messageOf } from '../errors.ts';
import { MAX_CRL_ENTRIES, readCrlContent, readCrlFrame } from './crl-reader.ts';
import { verifyCrlSignature } from './crl-signer.ts';
import { parseSpiffeId, type SpiffeId } from './spiffe-id.ts';
import { type PemContent, readStrictPem } from './strict-pem.ts';
import type { TrustBundle } from './trust-bundle.ts';

/** `serials` in upper-case hex as X509Certificate.serialNumber has them. Times in Unix milliseconds, 0 without a CRL; `number` in decimal. */
export interface RevocationList {
  readonly serials: ReadonlySet<string>;
  readonly blockedIds: ReadonlySet<string>;
  readonly thisUpdate: number;
  /** When the first of the CRLs will be out of date. */
  readonly nextUpdate: number;
  /** The highest CRL number: issuers count on their own, so it orders the lists of one issuer only. */
  readonly number: string;
  readonly der: readonly Buffer[];
}

const MAX_BYTES = 8 * 1024 * 1024;
const MAX_BLOCKS = 40;

/** Nothing is revoked. */
export const noRevocations: RevocationList = Object.freeze({
  serials: new Set<string>(),
  blockedIds: new Set<string>(),
  thisUpdate: 0,
  nextUpdate: 0,
  number: '0',
  der: Object.freeze([]),
});

/**
 * Reads the PEM of CRLs with their signers' certificates beside them. An empty text revokes nothing. Throws CRL_INVALID for everything else
 * that is not a list signed for this trust domain: a list that cannot be read must never pass for one that clears.
 */
export function parseRevocationList(pem: string, bundle: TrustBundle): RevocationList {
  if (pem.length > MAX_BYTES) throw invalid(`longer than ${MAX_BYTES} bytes`);
  const blocks = reading('revocation list', () => readStrictPem(pem, MAX_BLOCKS));
  const certificates = ofLabel(blocks, 'CERTIFICATE').map(({ der }, index) =>
    reading(`certificate ${index + 1} of the revocation list`, () => new X509Certificate(der)),
  );
  const crls = ofLabel(blocks, 'X509 CRL');
  const stranger = blocks.find(({ label }) => label !== 'CERTIFICATE' && label !== 'X509 CRL');
  if (stranger !== undefined) throw invalid(`a PEM block is a ${stranger.label}, neither an X509 CRL nor a CERTIFICATE`);
  if (crls.length === 0) {
    if (certificates.length > 0) throw invalid('there are certificates, but no CRL that they might have signed');
    return noRevocations;
  }
  const read = crls.map(({ der }, index) =>
    reading(`CRL ${index + 1}`, () => {
      const frame = readCrlFrame(der);
      verifyCrlSignature(frame, { certificates, bundle });
      return { frame, content: readCrlContent(frame) };
    }),
  );
  const serials = new Set(read.flatMap(({ content }) => content.serials));
  const blockedIds = new Set(read.flatMap(({ content }) => content.blockedUris).map((uri) => blockedId(uri, bundle.trustDomain)));
  if (serials.size + blockedIds.size > MAX_CRL_ENTRIES)
    throw invalid(`${serials.size + blockedIds.size} entries, at most ${MAX_CRL_ENTRIES} are accepted`);
  return Object.freeze({
    serials,
    blockedIds,
    thisUpdate: Math.max(...read.map(({ frame }) => frame.thisUpdate)),
    nextUpdate: Math.min(...read.map(({ frame }) => frame.nextUpdate)),
    number: read
      .map(({ content }) => content.number)
      .reduce((a, b) => (a > b ? a : b))
      .toString(),
    der: Object.freeze(crls.map(({ der }) => der)),
  });
}

/** Why this peer is turned away, in words; undefined when the list has nothing against it. */
export function revocationOf(peer: { id: SpiffeId; serial: string }, list: RevocationList): string | undefined {
  if (list.serials.has(peer.serial)) return `certificate ${peer.serial} has been revoked`;
  if (list.blockedIds.has(peer.id.uri)) return `${peer.id.uri} has been blocked`;
  return undefined;
}

/** An authority speaks of its own trust domain alone; anybody else's name in its list is a mistake that must not pass silently. */
function blockedId(uri: string, trustDomain: string): string {
  const id = reading('blocked SPIFFE ID', () => parseSpiffeId(uri));
  if (id.trustDomain !== trustDomain || id.path === '') throw invalid(`it blocks ${uri}, which is no workload of ${trustDomain}`);
  return id.uri;
}

function ofLabel(blocks: readonly PemContent[], label: string): PemContent[] {
  return blocks.filter((block) => block.label === label);
}

function reading<T>(what: string, read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new HandfastError('CRL_INVALID', `${what}: ${messageOf(cause)}`, { cause });
  }
}

function invalid(reason: string): HandfastError {
  return new HandfastError('CRL_INVALID', `revocation list: ${reason}`);
}
