// base64url without padding (RFC 7515, section 2), in its one canonical form.

/** Throws a plain Error for padding, other alphabets and stray bits: node:crypto's decoder skips them, and one signature would have many texts. */
export function decodeBase64url(text: string): Buffer {
  const bytes = Buffer.from(text, 'base64url');
  if (bytes.toString('base64url') !== text) throw new Error('not canonical base64url');
  return bytes;
}
