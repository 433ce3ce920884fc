// Prometheus' text format 0.0.4 read strictly: whatever a scraper could stumble over is an error.

export interface Exposition {
  readonly types: ReadonlyMap<string, string>;
  /** By name and labels, sorted, as `name{a="b"}`. */
  readonly samples: ReadonlyMap<string, number>;
  /** The sum of all samples of a family that have these labels; undefined where there is none. */
  sum(name: string, labels?: Readonly<Record<string, string>>): number | undefined;
}

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/y;

interface Read {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

/** Throws for what is not well-formed, a family without HELP and TYPE or in two places, a sample that stands twice, a counter below 0. */
export function readExposition(text: string): Exposition {
  if (!text.endsWith('\n')) throw new Error('the last line has no end');
  const types = new Map<string, string>();
  const helps = new Set<string>();
  const samples = new Map<string, number>();
  const read: Read[] = [];
  let family = '';
  for (const line of text.slice(0, -1).split('\n')) {
    const [, what, name = '', rest = ''] = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line) ?? [];
    if (what === 'HELP') {
      if (helps.has(name)) throw new Error(`${name} has HELP twice`);
      helps.add(name);
      family = name;
    } else if (what === 'TYPE') {
      if (family !== name || types.has(name)) throw new Error(`TYPE of ${name} is out of place`);
      if (rest !== 'counter' && rest !== 'gauge') throw new Error(`${name} is a ${rest}`);
      if ((rest === 'counter') !== name.endsWith('_total')) throw new Error(`${name} is a ${rest} by its type alone`);
      types.set(name, rest);
    } else {
      const sample = readSample(line);
      if (sample.name !== family || !types.has(family)) throw new Error(`${line}: out of place`);
      if (types.get(family) === 'counter' && !(sample.value >= 0)) throw new Error(`${line}: a counter below 0`);
      const key = keyOf(sample);
      if (samples.has(key)) throw new Error(`${key} stands twice`);
      samples.set(key, sample.value);
      read.push(sample);
    }
  }
  return {
    types,
    samples,
    sum: (name, labels = {}) => {
      const found = read.filter(
        (sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
      );
      return found.length === 0 ? undefined : found.reduce((sum, { value }) => sum + value, 0);
    },
  };
}

function readSample(line: string): Read {
  const [, name, inside = '', number = ''] = SAMPLE.exec(line) ?? [];
  if (name === undefined) throw new Error(`${line}: no sample`);
  const value = Number(number.replace(/^([+-]?)Inf$/, '$1Infinity'));
  if (Number.isNaN(value) && number !== 'NaN') throw new Error(`${line}: no number`);
  const labels: Record<string, string> = {};
  LABEL.lastIndex = 0;
  for (let at = 0; at < inside.length; at = LABEL.lastIndex) {
    LABEL.lastIndex = at;
    const [, label, escaped = ''] = LABEL.exec(inside) ?? [];
    if (label === undefined) throw new Error(`${line}: its labels cannot be read`);
    if (label in labels) throw new Error(`${line}: ${label} stands twice`);
    labels[label] = escaped.replace(/\\(.)/g, (_, char: string) => (char === 'n' ? '\n' : char));
  }
  return { name, labels, value };
}

function keyOf({ name, labels }: Read): string {
  const sorted = Object.entries(labels).sort(([a], [b]) => (a < b ? -1 : 1));
  return sorted.length === 0 ? name : `${name}{${sorted.map(([key, value]) => `${key}=${JSON.stringify(value)}`).join(',')}}`;
}
