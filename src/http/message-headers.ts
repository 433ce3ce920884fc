// Header fields as they stood in a message, in order and each time they came: which of them concern one connection alone, and how often one is there.

export type HeaderField = readonly [name: string, value: string];

/** Of one connection alone, whoever lists them (RFC 9110, 7.6.1). How a body is framed is said anew by whoever sends it on. */
const HOP_BY_HOP: ReadonlySet<string> = new Set(['connection', 'keep-alive', 'proxy-connection', 'te', 'transfer-encoding', 'upgrade']);

/** What no `Connection` header may take away: without them a message is another one. */
const NOT_TO_BE_LISTED: ReadonlySet<string> = new Set(['host', 'content-length', 'content-type', 'authorization', 'cookie', 'trailer']);

/** Trailers that are none: they would say anew where a message goes, how it is framed, or who sent it (RFC 9110, 6.5.1). */
const NO_TRAILERS: ReadonlySet<string> = new Set([
  ...HOP_BY_HOP,
  ...NOT_TO_BE_LISTED,
  'content-encoding',
  'content-range',
  'expect',
  'x-request-id',
  'set-cookie',
  'www-authenticate',
]);

/** Node's flat list, names and values in turn, as pairs. */
export function fieldsOf(raw: readonly string[]): HeaderField[] {
  const fields: HeaderField[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) fields.push([raw[at] ?? '', raw[at + 1] ?? '']);
  return fields;
}

/** One name for all that many frameworks take for the same: they make `_` of `-`. */
export function plainName(name: string): string {
  return name.toLowerCase().replaceAll('_', '-');
}

/** Every value of one field, in order. `name` in lower case. */
export function valuesOf(fields: readonly HeaderField[], name: string): string[] {
  const found: string[] = [];
  for (const [field, value] of fields) if (field.length === name.length && field.toLowerCase() === name) found.push(value);
  return found;
}

/** The members of a list-valued field, in lower case. */
export function tokensOf(fields: readonly HeaderField[], name: string): string[] {
  return valuesOf(fields, name)
    .flatMap((value) => value.split(','))
    .map((token) => token.trim().toLowerCase())
    .filter((token) => token !== '');
}

/** What goes on to the other side. */
export function endToEnd(fields: readonly HeaderField[]): HeaderField[] {
  const listed = tokensOf(fields, 'connection').filter((name) => !NOT_TO_BE_LISTED.has(name));
  return fields.filter(([field]) => {
    const name = field.toLowerCase();
    return !HOP_BY_HOP.has(name) && !listed.includes(name);
  });
}

/** What goes on of trailers. */
export function endToEndTrailers(fields: readonly HeaderField[]): HeaderField[] {
  return fields.filter(([field]) => !NO_TRAILERS.has(plainName(field)));
}
