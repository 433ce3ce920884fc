// Which fields a message may carry (RFC 9113, 8.2 and 8.3): one that breaks these rules is no message at all.

import type { HeaderField } from './hpack-decoder.ts';

/** RFC 9110, 5.6.2, in lower case. */
const NAME = /^:?[!#$%&'*+\-.^_`|~0-9a-z]+$/;
/** Neither at the beginning nor at the end may be white space, and nowhere what would end a line of HTTP/1. */
const VALUE = /^(?![ \t])[^\0\r\n]*(?<![ \t])$/;
const CONNECTION_SPECIFIC: ReadonlySet<string> = new Set(['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade']);

/** The pseudo-headers of a message, none twice and all before the others. Undefined for one that is malformed. */
export function readFields(fields: readonly HeaderField[]): ReadonlyMap<string, string> | undefined {
  const pseudo = new Map<string, string>();
  let regular = false;
  for (const [name, value] of fields) {
    if (!NAME.test(name) || !VALUE.test(value)) return undefined;
    if (name.startsWith(':')) {
      if (regular || pseudo.has(name)) return undefined;
      pseudo.set(name, value);
    } else {
      regular = true;
      if (CONNECTION_SPECIFIC.has(name) || (name === 'te' && value !== 'trailers')) return undefined;
    }
  }
  return pseudo;
}

/** Trailers have no pseudo-headers. Of a list that was too long nobody misses anything. */
export function areTrailers(fields: readonly HeaderField[] | undefined): boolean {
  return fields === undefined || readFields(fields)?.size === 0;
}
