// JSON of a signed document: what two parsers could read differently is refused (RFC 7515, section 4; RFC 8725, section 2.4).

/** As JSON.parse, but a member name that stands twice in one object is an error, and so is an odd byte. Throws a plain Error. */
export function parseStrictJson(bytes: Buffer | string): unknown {
  const text = typeof bytes === 'string' ? bytes : new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  const value: unknown = JSON.parse(text);
  refuseDuplicateNames(text);
  return value;
}

/** The same, where only an object will do. */
export function parseStrictObject(bytes: Buffer | string): Readonly<Record<string, unknown>> {
  const value = parseStrictJson(bytes);
  if (!isJsonObject(value)) throw new Error('not a JSON object');
  return value;
}

export function isJsonObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** `text` is known to be JSON, so strings and brackets are all there is to look at. A string before a colon is a name. */
function refuseDuplicateNames(text: string): void {
  const open: (Set<string> | undefined)[] = [];
  for (const [token, string] of text.matchAll(/("[^"\\]*(?:\\.[^"\\]*)*")(?:\s*:)?|[{}[\]]/g)) {
    if (token === '{') open.push(new Set());
    else if (token === '[') open.push(undefined);
    else if (token === '}' || token === ']') open.pop();
    else if (string !== undefined && token.length > string.length) {
      const name: unknown = JSON.parse(string);
      const names = open.at(-1);
      if (names === undefined || typeof name !== 'string') continue;
      if (names.has(name)) throw new Error(`member ${JSON.stringify(name)} stands twice`);
      names.add(name);
    }
  }
}
