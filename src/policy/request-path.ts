// The path of a request, as it goes to the application and in every way in which an application might read it. A request may pass only where each reading may, so that no spelling gets
// past a policy. What goes on is in the normal form of RFC 3986, as Istio's BASE makes it (https://istio.io/latest/docs/reference/config/security/normalization/).

export interface RequestPath {
  /** What the application gets, without the query. */
  readonly forward: string;
  /** As it came, with its `?`; or empty. */
  readonly query: string;
  /** `forward`, and what it is to those who merge slashes, decode twice or cut parameters off. Most paths have one. */
  readonly readings: readonly string[];
  /** Of an absolute target (`http://host/path`): its host, which is the request's. */
  readonly authority?: string;
}

/** Nothing in it that could be read in two ways. */
const PLAIN = /^(?:\/[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9._~!$&'()*+,=:@-]*)*\/?$/;
const ABSOLUTE = /^https?:\/\/([^/?#\\]*)(.*)$/is;
const UNRESERVED = /^[A-Za-z0-9._~-]$/;
/** A NUL, and what ends a line: to some they end the path. */
const NEVER = /^(?:00|0[aAdD])$/;
/** Each is read in some ten ways, by everybody who asks. */
const MAX_ODD = 512;
/** RFC 3986's pchar but for `;`, which some cut off. */
const SEGMENT_CHARACTER = /^[A-Za-z0-9._~!$&'()*+,=:@-]$/;

/** `target` as it stood in the request line. */
export function readPath(target: string, { method }: { method: string }): RequestPath | { readonly refusal: string } {
  if (target === '*')
    return method === 'OPTIONS' ? { forward: '*', query: '', readings: ['*'] } : { refusal: 'the target * is for OPTIONS alone' };
  if (target.startsWith('/')) return readOrigin(target);
  const absolute = ABSOLUTE.exec(target);
  if (absolute === null) return { refusal: 'the target is neither a path nor an http address' };
  const [, authority = '', rest = ''] = absolute;
  if (authority === '') return { refusal: 'the target names no host' };
  if (authority.includes('@')) return { refusal: 'the target names a user' };
  const read = readOrigin(rest.startsWith('/') ? rest : `/${rest}`);
  return 'refusal' in read ? read : { ...read, authority };
}

function readOrigin(target: string): RequestPath | { readonly refusal: string } {
  if (target.includes('#')) return { refusal: 'the target has a fragment' };
  const at = target.indexOf('?');
  const path = at < 0 ? target : target.slice(0, at);
  const query = at < 0 ? '' : target.slice(at);
  if (PLAIN.test(path)) return { forward: path, query, readings: [path] };
  if ((path.match(/[%;\\]|\/[/.]/g)?.length ?? 0) > MAX_ODD)
    return { refusal: `more than ${MAX_ODD} escapes, parameters, double slashes and dots in the path` };
  const forward = normalized(path);
  if (forward === undefined) return { refusal: `the path cannot be read: ${JSON.stringify(path.slice(0, 100))}` };
  const readings = new Set([forward]);
  for (const reading of otherReadings(forward)) {
    // Somebody would be led out of the root by it, or to a NUL.
    if (reading === undefined) return { refusal: `the path can be read in more than one way: ${JSON.stringify(path.slice(0, 100))}` };
    readings.add(reading);
  }
  return { forward, query, readings: [...readings] };
}

/** Undefined for one that is none. Some cut parameters off before they decode, and some after. */
function* otherReadings(forward: string): Generator<string | undefined> {
  yield merged(forward);
  const cut = withoutParameters(forward);
  yield* resolved(cut);
  for (const path of [forward, cut])
    for (const decoded of [decodedOnce(path), decodedTwice(path)]) {
      yield* resolved(decoded);
      yield* resolved(withoutParameters(decoded));
      // To whoever parses it a second time.
      if (/%(?:3F|23)/i.test(decoded)) yield* resolved(decoded.replace(/%(?:3F|23).*$/is, ''));
    }
}

/** Some merge slashes before they resolve dot segments, and some after: `/a//..` is `/a/`, or `/`. */
function* resolved(path: string): Generator<string | undefined> {
  const last = normalized(path);
  yield last === undefined ? undefined : merged(last);
  yield normalized(merged(path.replaceAll('\\', '/')));
}

/** `/a;v=1/b` is `/a/b` to servlet containers, and `/a/..;/b` is `/b`. */
function withoutParameters(path: string): string {
  return path
    .replaceAll('\\', '/')
    .split('/')
    .map((segment) => segment.replace(/;.*$/s, ''))
    .join('/');
}

function merged(path: string): string {
  return path.replace(/\/{2,}/g, '/');
}

/** Slashes that were written as escapes, too. */
function decodedOnce(path: string): string {
  return path.replace(/%([0-9A-F]{2})/g, (written, hex: string) => {
    const character = String.fromCharCode(Number.parseInt(hex, 16));
    return character === '/' || character === '\\' || character === ';' || SEGMENT_CHARACTER.test(character) ? character : written;
  });
}

function decodedTwice(path: string): string {
  // As often as it stands there: %252525 is as long as it likes to be, and an application that decodes three times is beyond help.
  return decodedOnce(path.replace(/%25([0-9A-Fa-f]{2})/g, '%$1').replace(/%[0-9A-Fa-f]{2}/g, (written) => written.toUpperCase()));
}

/** RFC 3986, 6.2.2: escapes in upper case and only where they are needed, `\` as `/`, no dot segments. Undefined where there is an escape that is none, a NUL, or a way out of the root. */
function normalized(path: string): string | undefined {
  let bad = false;
  const escaped = path
    .replaceAll('\\', '/')
    // What no target may have is written as an escape: by UTF-8 bytes, one for each character that Node has read as Latin-1.
    .replace(/[^\x21-\x7e]/g, (character) => `%${character.charCodeAt(0).toString(16).padStart(2, '0')}`)
    .replace(/%(.{0,2})/gs, (written, hex: string) => {
      if (!/^[0-9A-Fa-f]{2}$/.test(hex) || NEVER.test(hex)) bad = true;
      const character = String.fromCharCode(Number.parseInt(hex, 16));
      return UNRESERVED.test(character) ? character : written.toUpperCase();
    });
  // Leading slashes are one: a second one would make a host of the first segment, to whoever reads the path as a reference (RFC 3986, 4.2).
  return bad ? undefined : withoutDots(escaped)?.replace(/^\/{2,}/, '/');
}

function withoutDots(path: string): string | undefined {
  const kept: string[] = [];
  const segments = path.split('/').slice(1);
  for (const [index, segment] of segments.entries()) {
    const isLast = index === segments.length - 1;
    if (segment === '..') {
      if (kept.length === 0) return undefined;
      kept.pop();
    } else if (segment !== '.') {
      kept.push(segment);
      continue;
    }
    if (isLast) kept.push('');
  }
  return `/${kept.join('/')}`;
}
