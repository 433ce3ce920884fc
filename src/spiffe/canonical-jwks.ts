// A key set as it travels to sidecars: the keys that tokens can be verified with, and of each what that takes.

import { HandfastError } from '../errors.ts';
import { parseJwk } from './jwk.ts';
import { parseJwks } from './jwt.ts';
import { isJsonObject, parseStrictObject } from './strict-json.ts';

const MEMBERS = ['kty', 'kid', 'use', 'alg', 'crv', 'x', 'y', 'n', 'e'];
/** A hundred RSA keys of 4,096 bits are as long. */
const MAX_BYTES = 96 * 1024;

/** Throws JWT_INVALID for what is no key set, has no usable key, or more of them than anybody signs with. */
export function canonicalJwks(text: string): string {
  if (parseJwks(text).keys.length === 0) throw new HandfastError('JWT_INVALID', 'key set: it has no key that tokens can be verified with');
  const { keys } = parseStrictObject(text);
  const kept = (Array.isArray(keys) ? keys : []).filter(isJsonObject).filter((key) => parseJwk(key) !== undefined);
  const canonical = JSON.stringify({
    keys: kept.map((key) => Object.fromEntries(MEMBERS.flatMap((name) => (key[name] === undefined ? [] : [[name, key[name]]])))),
  });
  if (canonical.length > MAX_BYTES) throw new HandfastError('JWT_INVALID', `key set: more than ${MAX_BYTES} bytes of keys`);
  return canonical;
}
