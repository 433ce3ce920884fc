// How much may be asked for in one JWT-SVID: whoever verifies it takes 16 KiB, and so do most servers of request headers as a whole.

/** Of all audiences together, in UTF-8; in the token they are a third longer. */
export const MAX_AUDIENCE_BYTES = 4_096;

export function isTooMuchAudience(audiences: readonly string[]): boolean {
  return audiences.reduce((bytes, each) => bytes + Buffer.byteLength(JSON.stringify(each)), 0) > MAX_AUDIENCE_BYTES;
}
