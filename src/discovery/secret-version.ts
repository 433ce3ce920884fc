// The versions of resources that hold secrets: keyed digests, since a plain one of a short password is as good as the password to whoever sees it.

import { createHmac, randomBytes } from 'node:crypto';

/** Of this process, never written down: after a restart everything has another version, and is sent once more. */
const KEY = randomBytes(32);

export function keyedDigest(value: Uint8Array): string {
  return createHmac('sha256', KEY).update(value).digest('base64url').slice(0, 22);
}
