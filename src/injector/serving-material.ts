// What the webhook serves with: an authority of its own and a certificate for the names of its Service, from nothing, or from the Secret that keeps them.

import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import { commonNameOf, createCertificate, newSerial } from '../ca/certificate.ts';
import { keySigner } from '../ca/signer.ts';
import { HandfastError, messageOf } from '../errors.ts';
import { bitString, boolean, extension, implicit, oid, sequence, unsignedInteger } from '../spiffe/der-builder.ts';
import { SUBJECT_ALT_NAME } from '../spiffe/leaf.ts';
import { generateP256, isP256, pkcs8Pem } from '../spiffe/p256.ts';

/** All PEM; `certificate` is served, `previousCa` is one that others may still serve under. */
export interface ServingMaterial {
  readonly caCertificate: string;
  readonly caKey: string;
  readonly certificate: string;
  readonly key: string;
  readonly previousCa?: string;
}

export interface Lifetimes {
  readonly caMs: number;
  readonly leafMs: number;
}

const DAY = 86_400_000;
export const LIFETIMES: Lifetimes = { caMs: 365 * DAY, leafMs: 90 * DAY };
/** Clocks of API servers and nodes differ. */
const BACKDATE_MS = 5 * 60_000;
const CA_NAME = 'Handfast injector CA';
const FIELDS = { caCertificate: 'ca.crt', caKey: 'ca.key', certificate: 'tls.crt', key: 'tls.key', previousCa: 'previous-ca.crt' } as const;
const [BASIC_CONSTRAINTS, KEY_USAGE, EXTENDED_KEY_USAGE, SERVER_AUTH] = ['2.5.29.19', '2.5.29.15', '2.5.29.37', '1.3.6.1.5.5.7.3.1'];

interface Making {
  readonly dnsNames: readonly string[];
  /** Unix milliseconds. */
  readonly now: number;
  readonly lifetimes: Lifetimes;
}

/** A new authority and a certificate of it. `previousCa` stays trusted beside it. */
export async function makeServing(of: Making & { previousCa?: string | undefined }): Promise<ServingMaterial> {
  const { publicKey, privateKey } = await generateP256();
  const caCertificate = await createCertificate({
    subject: commonNameOf({ commonName: CA_NAME }),
    publicKey,
    issuer: { commonName: CA_NAME, signer: keySigner(privateKey) },
    validity: { notBefore: of.now - BACKDATE_MS, notAfter: of.now + of.lifetimes.caMs },
    serial: newSerial(),
    extensions: [
      extension(BASIC_CONSTRAINTS, { critical: true, value: sequence(boolean(true), unsignedInteger(Buffer.of(0))) }),
      // keyCertSign.
      extension(KEY_USAGE, { critical: true, value: bitString(Buffer.of(0x04), 2) }),
    ],
  });
  const ca = { caCertificate, caKey: pkcs8Pem(privateKey), ...(of.previousCa === undefined ? {} : { previousCa: of.previousCa }) };
  return renewLeaf(ca, of);
}

/** A new key and certificate under the same authority, which they do not outlive. */
export async function renewLeaf(
  ca: Pick<ServingMaterial, 'caCertificate' | 'caKey' | 'previousCa'>,
  { dnsNames, now, lifetimes }: Making,
): Promise<ServingMaterial> {
  const { publicKey, privateKey } = await generateP256();
  const certificate = await createCertificate({
    subject: commonNameOf({ commonName: 'Handfast injector' }),
    publicKey,
    issuer: { commonName: CA_NAME, signer: keySigner(createPrivateKey(ca.caKey)) },
    validity: {
      notBefore: now - BACKDATE_MS,
      notAfter: Math.min(now + lifetimes.leafMs, new X509Certificate(ca.caCertificate).validToDate.getTime()),
    },
    serial: newSerial(),
    extensions: [
      extension(BASIC_CONSTRAINTS, { critical: true, value: sequence() }),
      // digitalSignature.
      extension(KEY_USAGE, { critical: true, value: bitString(Buffer.of(0x80), 7) }),
      extension(EXTENDED_KEY_USAGE, { critical: false, value: sequence(oid(SERVER_AUTH)) }),
      extension(SUBJECT_ALT_NAME, {
        critical: false,
        value: sequence(...dnsNames.map((name) => implicit(2, Buffer.from(name, 'latin1')))),
      }),
    ],
  });
  return { ...ca, certificate, key: pkcs8Pem(privateKey) };
}

/** From a Secret's `data`. Throws STATE_INVALID when it cannot be served with, whatever the date is. */
export function readServing(data: Readonly<Record<string, unknown>>): ServingMaterial {
  try {
    const text = (name: string) => {
      const value = data[name];
      if (typeof value !== 'string' || value === '') throw new Error(`${name} is missing`);
      return Buffer.from(value, 'base64').toString('utf8');
    };
    const material = {
      caCertificate: text(FIELDS.caCertificate),
      caKey: text(FIELDS.caKey),
      certificate: text(FIELDS.certificate),
      key: text(FIELDS.key),
      ...(data[FIELDS.previousCa] === undefined ? {} : { previousCa: text(FIELDS.previousCa) }),
    };
    const [ca, leaf] = [new X509Certificate(material.caCertificate), new X509Certificate(material.certificate)];
    if (!ca.ca || !ca.checkPrivateKey(p256(material.caKey))) throw new Error('ca.crt and ca.key do not belong together');
    if (!leaf.checkPrivateKey(p256(material.key))) throw new Error('tls.crt and tls.key do not belong together');
    if (!leaf.verify(ca.publicKey)) throw new Error('tls.crt is not signed by ca.crt');
    if (material.previousCa !== undefined && !new X509Certificate(material.previousCa).ca)
      throw new Error('previous-ca.crt is no authority');
    return material;
  } catch (cause) {
    throw new HandfastError('STATE_INVALID', messageOf(cause), { cause });
  }
}

function p256(pem: string): KeyObject {
  const key = createPrivateKey(pem);
  if (!isP256(key)) throw new Error('a key is not P-256');
  return key;
}

/** What is due of it: after two thirds of a life, or when the Service is called otherwise. */
export function dueOf(
  { caCertificate, certificate }: ServingMaterial,
  of: { now: number; dnsNames: readonly string[] },
): 'ca' | 'leaf' | 'nothing' {
  const [ca, leaf] = [new X509Certificate(caCertificate), new X509Certificate(certificate)];
  const isDue = (one: X509Certificate) => {
    const [from, to] = [one.validFromDate.getTime(), one.validToDate.getTime()];
    return of.now >= from + ((to - from) * 2) / 3;
  };
  if (isDue(ca)) return 'ca';
  return isDue(leaf) || of.dnsNames.some((name) => leaf.checkHost(name) === undefined) ? 'leaf' : 'nothing';
}

/** A Secret's `data`; the previous authority is left out once it has ended. */
export function secretData(material: ServingMaterial, now: number): Record<string, string> {
  const { previousCa, ...others } = material;
  const kept = previousCa !== undefined && isValid(previousCa, now) ? { ...others, previousCa } : others;
  return Object.fromEntries(
    Object.entries(FIELDS).flatMap(([field, name]) => {
      const text = new Map<string, string>(Object.entries(kept)).get(field);
      return text === undefined ? [] : [[name, Buffer.from(text).toString('base64')] as const];
    }),
  );
}

/** What API servers verify the webhook with, PEM. */
export function caBundleOf({ caCertificate, previousCa }: ServingMaterial, now: number): string {
  return caCertificate + (previousCa !== undefined && isValid(previousCa, now) ? previousCa : '');
}

/** Unix milliseconds. */
export function endOf({ certificate }: Pick<ServingMaterial, 'certificate'>): number {
  return new X509Certificate(certificate).validToDate.getTime();
}

function isValid(certificate: string, now: number): boolean {
  return new X509Certificate(certificate).validToDate.getTime() > now;
}
