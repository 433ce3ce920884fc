// Words of others, as a terminal and a log may show them: without the characters that move cursors, colour lines or turn text around.

/** Control and format characters, and what ends a line. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** One line; each character that is not to be seen becomes U+FFFD. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, '\ufffd');
}
