// PEM blocks out of text, as SDS and the CA's files carry them.

const BLOCK = /-----BEGIN ([A-Z0-9 ]+)-----[\s\S]+?-----END \1-----/g;

/** One PEM block; `text` includes its armour and ends with a newline. */
export interface PemBlock {
  readonly label: string;
  readonly text: string;
}

/** All PEM blocks in order; an empty list when there are none. */
export function pemBlocks(text: string): PemBlock[] {
  return [...text.matchAll(BLOCK)].map((match) => ({ label: match[1] ?? '', text: `${match[0]}\n` }));
}
