// Which Handfast this is, as package.json says: it lies two folders up from here, as source and compiled.

import { readFileSync } from 'node:fs';
import { parseStrictObject } from '../spiffe/strict-json.ts';

/** `unknown` where there is no such file: what is shown to people must not keep a sidecar from starting. */
export function versionOf(file = new URL('../../package.json', import.meta.url)): string {
  try {
    const { version } = parseStrictObject(readFileSync(file));
    return typeof version === 'string' ? version : 'unknown';
  } catch {
    return 'unknown';
  }
}
