// PEM blocks out of text, as SDS and the CA's files carry them.

const ARMOUR = /-----(BEGIN|END) ([A-Z0-9 ]+)-----/g;

/** One PEM block; `text` includes its armour and ends with a newline. */
export interface PemBlock {
  readonly label: string;
  readonly text: string;
}

/**
 * All PEM blocks in order; an empty list when there are none. A block reaches from its BEGIN to the next END of its label, whatever stands between. Linear
 * in the text's length: it comes from peers, and one expression for the whole block would look through all of the text for each BEGIN without an END.
 */
export function pemBlocks(text: string): PemBlock[] {
  const lines = [...text.matchAll(ARMOUR)].map(({ 0: line, 1: kind, 2: label = '', index }) => ({
    kind,
    label,
    from: index,
    to: index + line.length,
  }));
  const ends = Map.groupBy(lines.filter(({ kind }) => kind === 'END').reverse(), ({ label }) => label);
  const blocks: PemBlock[] = [];
  let done = 0;
  for (const { kind, label, from, to } of lines) {
    if (kind !== 'BEGIN' || from < done) continue;
    const left = ends.get(label);
    while ((left?.at(-1)?.from ?? Number.POSITIVE_INFINITY) <= to) left?.pop();
    const end = left?.pop();
    if (end === undefined) continue;
    blocks.push({ label, text: `${text.slice(from, end.to)}\n` });
    done = end.to;
  }
  return blocks;
}
