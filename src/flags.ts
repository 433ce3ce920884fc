// Command-line flags by a table: parsed once, every value checked, unknown ones refused, `--help` written from the same table.

import { parseArgs } from 'node:util';
import { HandfastError, messageOf } from './errors.ts';

interface Common {
  readonly help: string;
  /** One letter that stands for it: `n` makes `-n`. `h` is --help's. */
  readonly short?: string;
  /** An environment variable that stands in when the flag is absent. */
  readonly env?: string;
}
export interface TextFlag extends Common {
  readonly kind: 'text';
  readonly value: string;
  readonly default?: string;
  readonly optional?: true;
}
export interface ChoiceFlag<T extends string = string> extends Common {
  readonly kind: 'choice';
  readonly choices: readonly T[];
  readonly default: NoInfer<T>;
}
/** Parsed to milliseconds. Bounds and default are written as on the command line: `500ms`, `10s`, `5m`, `24h`. */
export interface DurationFlag extends Common {
  readonly kind: 'duration';
  readonly default?: string;
  readonly optional?: true;
  readonly min: string;
  readonly max: string;
}
export interface PortFlag extends Common {
  readonly kind: 'port';
  readonly default: number;
}
export interface SwitchFlag extends Common {
  readonly kind: 'switch';
}
/** May be given more than once; without it, an empty list. */
export interface ListFlag extends Common {
  readonly kind: 'list';
  readonly value: string;
}
export type Flag = TextFlag | ChoiceFlag | DurationFlag | PortFlag | SwitchFlag | ListFlag;
export type Flags = Readonly<Record<string, Flag>>;

type Value<F extends Flag> =
  F extends ChoiceFlag<infer T>
    ? T
    : F extends SwitchFlag
      ? boolean
      : F extends ListFlag
        ? readonly string[]
        : F extends PortFlag
          ? number
          : F extends DurationFlag
            ? F extends { optional: true }
              ? number | undefined
              : number
            : F extends { optional: true }
              ? string | undefined
              : string;
export type FlagValues<T extends Flags> = { readonly [K in keyof T]: Value<T[K]> };

/** A word that is no flag, by its place; the last ones may be left out. Its name is no flag's. */
export interface Positional {
  readonly name: string;
  readonly optional?: boolean;
}
type PositionalValues<P extends readonly Positional[]> = {
  readonly [E in P[number] as E['name']]: E extends { optional: true } ? string | undefined : string;
};

/** What `--help` prints around the table, and the words that are taken beside flags: none unless told otherwise. */
export interface Usage<P extends readonly Positional[] = readonly Positional[]> {
  readonly command: string;
  readonly summary: string;
  readonly positionals?: P;
}

/** Thrown by `parseFlags` for `--help`; the message is the help. */
export class HelpRequested extends Error {}

/** Throws CONFIG_INVALID that names the flag, or HelpRequested. `env` is read for flags that name a variable. Positionals come back by their names. */
export function parseFlags<T extends Flags, const P extends readonly Positional[] = readonly []>(
  argv: readonly string[],
  flags: T,
  usage: Usage<P>,
  env: NodeJS.ProcessEnv = {},
): FlagValues<T> & PositionalValues<P> {
  const positionals: readonly Positional[] = usage.positionals ?? [];
  const options = Object.fromEntries(
    Object.entries(flags).map(([name, { kind, short }]) => [
      name,
      {
        type: kind === 'switch' ? ('boolean' as const) : ('string' as const),
        ...(kind === 'list' ? { multiple: true } : {}),
        ...(short === undefined ? {} : { short }),
      },
    ]),
  );
  let given: Record<string, Given>;
  let words: readonly string[];
  try {
    const parsed = parseArgs({
      args: [...argv],
      options: { ...options, help: { type: 'boolean', short: 'h' } },
      strict: true,
      allowPositionals: positionals.length > 0,
    });
    given = parsed.values as typeof given;
    words = parsed.positionals;
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `${messageOf(cause)}\nSee ${usage.command} --help`, { cause });
  }
  if (given.help === true) throw new HelpRequested(helpText(flags, usage));
  const values = Object.entries(flags).map(
    ([name, flag]) => [name, readValue(name, flag, given[name] ?? (flag.env === undefined ? undefined : env[flag.env]))] as const,
  );
  return Object.freeze(Object.fromEntries([...values, ...readWords(words, positionals, usage)])) as FlagValues<T> & PositionalValues<P>;
}

function readWords(words: readonly string[], positionals: readonly Positional[], usage: Usage): (readonly [string, string | undefined])[] {
  const extra = words[positionals.length];
  if (extra !== undefined)
    throw new HandfastError('CONFIG_INVALID', `${JSON.stringify(extra)} is one word too many\nSee ${usage.command} --help`);
  return positionals.map(({ name, optional }, index) => {
    const word = words[index] === '' ? undefined : words[index];
    if (word === undefined && optional !== true)
      throw new HandfastError('CONFIG_INVALID', `${name.toUpperCase()} is needed\nSee ${usage.command} --help`);
    return [name, word] as const;
  });
}

type Given = string | boolean | readonly string[] | undefined;

function readValue(name: string, flag: Flag, given: Given): string | number | boolean | readonly string[] | undefined {
  if (flag.kind === 'list') return Object.freeze(typeof given === 'object' ? [...given] : typeof given === 'string' ? [given] : []);
  if (flag.kind === 'switch') {
    if (given === undefined || given === true) return given === true;
    if (given === 'true' || given === 'false') return given === 'true';
    throw new HandfastError('CONFIG_INVALID', `${flag.env} ${JSON.stringify(given)} is not accepted: true or false`);
  }
  const text = typeof given === 'string' ? given : undefined;
  switch (flag.kind) {
    case 'text': {
      const value = text ?? flag.default;
      if (value !== undefined && value !== '') return value;
      if (flag.optional === true) return undefined;
      throw new HandfastError('CONFIG_INVALID', `--${name} ${flag.value} is needed: ${flag.help}`);
    }
    case 'choice': {
      const value = text ?? flag.default;
      if (!flag.choices.includes(value)) throw bad(name, value, flag.choices.join(', '));
      return value;
    }
    case 'port': {
      const value = text === undefined ? flag.default : /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
      if (!(value <= 65535)) throw bad(name, String(text), 'a port from 0 to 65535');
      return value;
    }
    case 'duration': {
      const value = text ?? flag.default;
      if (value === undefined) {
        if (flag.optional === true) return undefined;
        throw new HandfastError('CONFIG_INVALID', `--${name} DURATION is needed: ${flag.help}`);
      }
      const ms = parseDuration(value);
      const accepted = `a duration from ${flag.min} to ${flag.max}, such as 500ms, 10s, 5m or 1h`;
      if (ms === undefined || ms < (parseDuration(flag.min) ?? 0) || ms > (parseDuration(flag.max) ?? 0)) throw bad(name, value, accepted);
      return ms;
    }
    default:
      return flag satisfies never;
  }
}

/** Milliseconds, or undefined for what is no duration. */
export function parseDuration(text: string): number | undefined {
  const [, amount, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? [];
  if (amount === undefined || unit === undefined) return undefined;
  const factor = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[unit];
  return factor === undefined ? undefined : Math.round(Number(amount) * factor);
}

function bad(name: string, value: string, accepted: string): HandfastError {
  return new HandfastError('CONFIG_INVALID', `--${name} ${JSON.stringify(value)} is not accepted: ${accepted}`);
}

function helpText(flags: Flags, usage: Usage): string {
  const rows = Object.entries(flags).map(([name, flag]) => {
    const value =
      flag.kind === 'switch'
        ? ''
        : ` ${flag.kind === 'text' || flag.kind === 'list' ? flag.value : flag.kind === 'choice' ? flag.choices.join('|') : flag.kind.toUpperCase()}`;
    const preset = 'default' in flag && flag.default !== undefined ? ` (default ${flag.default})` : '';
    return [
      `  ${flag.short === undefined ? '' : `-${flag.short}, `}--${name}${value}`,
      `${flag.help}${preset}${flag.env === undefined ? '' : ` [${flag.env}]`}`,
    ] as const;
  });
  const width = Math.min(38, Math.max(...rows.map(([left]) => left.length))) + 2;
  const lines = rows.map(([left, right]) => (left.length >= width ? `${left}\n${' '.repeat(width)}${right}` : left.padEnd(width) + right));
  const words = (usage.positionals ?? []).map(({ name, optional }) =>
    optional === true ? ` [${name.toUpperCase()}]` : ` ${name.toUpperCase()}`,
  );
  return `usage: ${usage.command}${words.join('')} [flags]\n\n${usage.summary}\n\n${lines.join('\n')}\n`;
}
