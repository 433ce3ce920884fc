// PEM (RFC 7468) where nothing may go missing unseen: a block that was cut off is an error, not an absent block.

/** `label` without BEGIN and END, `der` the decoded bytes. */
export interface PemContent {
  readonly label: string;
  readonly der: Buffer;
}

const BEGIN = /\s*-----BEGIN ([A-Z0-9 ]{1,40})-----/y;

/** All blocks of a text that has nothing but blocks in it; none for an empty text. Throws a plain Error. Linear in the text's length. */
export function readStrictPem(text: string, max: number): PemContent[] {
  const blocks: PemContent[] = [];
  const end = text.trimEnd().length;
  for (let at = 0; at < end; ) {
    if (blocks.length === max) throw new Error(`more than ${max} PEM blocks`);
    BEGIN.lastIndex = at;
    const label = BEGIN.exec(text)?.[1];
    if (label === undefined) throw new Error(`there is something else than PEM at character ${at + 1}`);
    const footer = `-----END ${label}-----`;
    const close = text.indexOf('-----', BEGIN.lastIndex);
    if (close < 0 || !text.startsWith(footer, close)) throw new Error(`PEM block ${blocks.length + 1} (${label}) has no end`);
    blocks.push({ label, der: base64(text.slice(BEGIN.lastIndex, close), `PEM block ${blocks.length + 1} (${label})`) });
    at = close + footer.length;
  }
  return blocks;
}

function base64(text: string, what: string): Buffer {
  const compact = text.replace(/[\r\n\t ]+/g, '');
  const bytes = Buffer.from(compact, 'base64');
  if (bytes.length === 0 || bytes.toString('base64') !== compact) throw new Error(`${what} is not base64`);
  return bytes;
}
