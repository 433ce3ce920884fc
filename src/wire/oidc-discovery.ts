// Where an OIDC issuer's keys come from: its discovery document (OpenID Connect Discovery 1.0), or a file.

import { readFile } from 'node:fs/promises';
import { HandfastError, messageOf } from '../errors.ts';
import { type Jwks, parseJwks } from '../spiffe/jwt.ts';
import { parseStrictObject } from '../spiffe/strict-json.ts';
import { type BoundedRequest, boundedRequest, isConfidential } from './bounded-request.ts';

const MAX_BYTES = 524_288;

/** Throws CONFIG_INVALID unless the issuer may be asked for its keys. */
export function issuerUrl(issuer: string): URL {
  const url = URL.canParse(issuer) ? new URL(issuer) : undefined;
  if (url === undefined || !isConfidential(url) || url.search !== '' || url.hash !== '' || url.username !== '' || url.password !== '') {
    throw new HandfastError(
      'CONFIG_INVALID',
      `issuer ${JSON.stringify(issuer)}: an https URL without query is needed (http on loopback alone); or give its keys as a file`,
    );
  }
  return url;
}

/** Asks the issuer. `ca` is the PEM file of whoever may have signed its certificate, read again each time. Throws UNAVAILABLE or JWT_INVALID. */
export async function fetchIssuerKeys(issuer: string, options: { caFile?: string; timeoutMs: number }): Promise<Jwks> {
  const ca = options.caFile === undefined ? {} : { ca: await readText(options.caFile) };
  return parseJwks(await fetchIssuerJwks(issuer, { ...ca, timeoutMs: options.timeoutMs }));
}

/** `refuse`: why a URL may not be asked, also one to which a document leads. */
type Asking = Pick<BoundedRequest, 'ca' | 'lookup' | 'timeoutMs'> & { readonly refuse?: (url: URL) => string | undefined };

/** The text at a URL. Throws UNAVAILABLE. */
export async function fetchKeys(url: URL, { refuse, ...asking }: Asking): Promise<string> {
  const refusal = refuse?.(url);
  if (refusal !== undefined) throw new HandfastError('UNAVAILABLE', refusal);
  const { status, text } = await boundedRequest(url, { method: 'GET', maxBytes: MAX_BYTES, ...asking });
  if (status !== 200) throw new HandfastError('UNAVAILABLE', `GET ${url.origin}${url.pathname} was answered with ${status}`);
  return text;
}

/** The key set to which the issuer's own metadata leads, as text. Throws UNAVAILABLE. */
export async function fetchIssuerJwks(issuer: string, asking: Asking): Promise<string> {
  const get = (url: URL) => fetchKeys(url, asking);
  const document = new URL(`${issuerUrl(issuer).href.replace(/\/$/, '')}/.well-known/openid-configuration`);
  const { issuer: named, jwks_uri: keysAt } = parseDocument(await get(document), document);
  // Section 4.3: exactly equal, or another issuer's document has been put in its place.
  if (named !== issuer) throw new HandfastError('UNAVAILABLE', `${document.href} is that of ${JSON.stringify(named)}, not of ${issuer}`);
  const url = typeof keysAt === 'string' && URL.canParse(keysAt) ? new URL(keysAt) : undefined;
  if (url === undefined || !isConfidential(url))
    throw new HandfastError('UNAVAILABLE', `${document.href}: its jwks_uri ${JSON.stringify(keysAt)} may not be asked`);
  // A document from elsewhere must not point us at a service of this machine.
  if (url.protocol === 'http:' && document.protocol !== 'http:')
    throw new HandfastError('UNAVAILABLE', `${document.href}: its jwks_uri ${url.href} is on loopback`);
  return get(url);
}

/** Throws UNAVAILABLE or JWT_INVALID. */
export async function readKeysFile(path: string): Promise<Jwks> {
  return parseJwks(await readText(path));
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new HandfastError('UNAVAILABLE', `cannot read ${path}: ${messageOf(cause)}`, { cause });
  }
}

function parseDocument(text: string, at: URL): Readonly<Record<string, unknown>> {
  try {
    return parseStrictObject(text);
  } catch (cause) {
    throw new HandfastError('UNAVAILABLE', `${at.href}: ${messageOf(cause)}`, { cause });
  }
}
