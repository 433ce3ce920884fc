// The command line: every value checked, every refusal naming its flag and what would be accepted.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type Flags, HelpRequested, parseDuration, parseFlags } from '../../src/flags.ts';
import { refusal } from '../support/refusal.ts';

const flags = {
  name: { kind: 'text', value: 'NAME', help: 'whose' },
  path: { kind: 'text', value: 'PATH', help: 'where', default: '/run/x' },
  extra: { kind: 'text', value: 'TEXT', help: 'more', optional: true, env: 'X_EXTRA' },
  level: { kind: 'choice', choices: ['info', 'warn'], default: 'info', help: 'how loud', env: 'X_LEVEL' },
  port: { kind: 'port', default: 15006, help: 'where', env: 'X_PORT' },
  ttl: { kind: 'duration', default: '1h', min: '10s', max: '24h', help: 'how long' },
  wait: { kind: 'duration', optional: true, min: '0ms', max: '1m', help: 'how long at most' },
  force: { kind: 'switch', help: 'anyway', env: 'X_FORCE' },
} as const satisfies Flags;
const usage = { command: 'handfast x', summary: 'Does x.' };
const parse = (argv: readonly string[], env: NodeJS.ProcessEnv = {}) => parseFlags(['--name', 'n', ...argv], flags, usage, env);

describe('accepted', () => {
  test('defaults where nothing is given', () => {
    assert.deepEqual(
      { ...parse([]) },
      { name: 'n', path: '/run/x', extra: undefined, level: 'info', port: 15006, ttl: 3_600_000, wait: undefined, force: false },
    );
    assert.ok(Object.isFrozen(parse([])));
  });

  test('every kind, with a space and with an equals sign', () => {
    const values = { path: '/a', extra: 'e', level: 'warn', port: 80, ttl: 90_000, wait: 1500, force: true };
    const spaced = parse(['--path', '/a', '--extra', 'e', '--level', 'warn', '--port', '80', '--ttl', '90s', '--wait', '1.5s', '--force']);
    const equals = parse(['--path=/a', '--extra=e', '--level=warn', '--port=80', '--ttl=90s', '--wait=1500ms', '--force']);
    assert.deepEqual({ ...spaced }, { name: 'n', ...values });
    assert.deepEqual({ ...equals }, { name: 'n', ...values });
  });

  test('the variable stands in for a flag that is absent, and not for one that is given', () => {
    assert.equal(parse([], { X_PORT: '1', X_LEVEL: 'warn', X_EXTRA: 'e', X_FORCE: 'true' }).port, 1);
    assert.equal(parse([], { X_LEVEL: 'warn' }).level, 'warn');
    assert.equal(parse([], { X_FORCE: 'true' }).force, true);
    assert.equal(parse(['--port', '2'], { X_PORT: '1' }).port, 2);
    assert.equal(parse([], { NAME: 'x', TTL: '1s' }).ttl, 3_600_000);
  });

  for (const [text, port] of [
    ['0', 0],
    ['1', 1],
    ['65535', 65535],
  ] as const) {
    test(`port ${text}`, () => assert.equal(parse(['--port', text]).port, port));
  }
  for (const [text, ms] of [
    ['10s', 10_000],
    ['24h', 86_400_000],
    ['0.5h', 1_800_000],
    ['86400s', 86_400_000],
  ] as const) {
    test(`ttl ${text}`, () => assert.equal(parse(['--ttl', text]).ttl, ms));
  }
});

describe('refused', () => {
  const cases: Readonly<Record<string, readonly [argv: string[], says: readonly string[], env?: NodeJS.ProcessEnv]>> = {
    'an unknown flag': [
      ['--prot', '80'],
      ['--prot', 'handfast x --help'],
    ],
    'a word that is no flag': [['serve'], ['serve', 'handfast x --help']],
    'a flag without its value': [['--port'], ['--port']],
    'a value for a switch': [['--force=yes'], ['--force']],
    'port 65536': [['--port', '65536'], ['--port "65536" is not accepted: a port from 0 to 65535']],
    'port -1': [['--port=-1'], ['--port "-1" is not accepted']],
    'a port that is no number': [['--port', 'http'], ['--port "http" is not accepted']],
    'a port and a half': [['--port', '80.5'], ['--port "80.5"']],
    'an empty port, as an unset shell variable leaves it': [['--port='], ['--port "" is not accepted']],
    'a port of blanks': [['--port', ' '], ['--port " " is not accepted']],
    'a port in hexadecimal': [['--port', '0x50'], ['--port "0x50" is not accepted']],
    'a port in scientific notation': [['--port', '1e3'], ['--port "1e3" is not accepted']],
    'an empty port from a variable': [[], ['--port'], { X_PORT: '' }],
    'a bad port from a variable': [[], ['--port "x" is not accepted'], { X_PORT: 'x' }],
    'another choice': [['--level', 'loud'], ['--level "loud" is not accepted: info, warn']],
    'a choice in upper case': [['--level', 'INFO'], ['--level "INFO" is not accepted: info, warn']],
    'a choice that every object has': [['--level', 'constructor'], ['--level']],
    'a duration below the bound': [['--ttl', '9s'], ['--ttl "9s" is not accepted: a duration from 10s to 24h']],
    'a duration above the bound': [
      ['--ttl', '25h'],
      ['--ttl "25h"', '24h'],
    ],
    'a duration without a unit': [
      ['--ttl', '3600'],
      ['--ttl "3600"', 'such as 500ms, 10s, 5m or 1h'],
    ],
    'a negative duration': [['--ttl=-10s'], ['--ttl "-10s"']],
    'an empty duration': [['--ttl='], ['--ttl ""']],
    days: [['--ttl', '1d'], ['--ttl "1d"']],
    'an empty text': [['--path='], ['--path PATH is needed']],
    'a switch from a variable that is neither true nor false': [[], ['X_FORCE'], { X_FORCE: 'yes' }],
  };
  for (const [name, [argv, says, env]] of Object.entries(cases)) {
    test(name, () => assert.throws(() => parse(argv, env), refusal('CONFIG_INVALID', ...says)));
  }

  test('a text that is needed and missing, with its meaning', () => {
    assert.throws(() => parseFlags([], flags, usage), refusal('CONFIG_INVALID', '--name NAME is needed: whose'));
    assert.throws(() => parseFlags(['--name='], flags, usage), refusal('CONFIG_INVALID', '--name NAME is needed'));
  });

  test('an optional text that is empty is the same as none', () => {
    assert.equal(parse(['--extra=']).extra, undefined);
    assert.equal(parse([], { X_EXTRA: '' }).extra, undefined);
  });
});

describe('help', () => {
  for (const argv of [['--help'], ['-h'], ['--port', 'nonsense', '--help']]) {
    test(`${argv.join(' ')} asks for it, whatever else is wrong or missing`, () => {
      assert.throws(
        () => parseFlags(argv, flags, usage),
        (error) => error instanceof HelpRequested,
      );
    });
  }

  test('names every flag with its value, default, meaning and variable', () => {
    assert.throws(
      () => parseFlags(['--help'], flags, usage),
      (error: Error) => {
        for (const part of [
          'usage: handfast x [flags]',
          'Does x.',
          '--name NAME',
          '--path PATH',
          '(default /run/x)',
          '--level info|warn',
          '--port PORT',
          '(default 15006) [X_PORT]',
          '--ttl DURATION',
          '--force',
          '[X_FORCE]',
        ]) {
          assert.ok(error.message.includes(part), part);
        }
        return true;
      },
    );
  });
});

describe('parseDuration', () => {
  for (const [text, ms] of [
    ['500ms', 500],
    ['10s', 10_000],
    ['5m', 300_000],
    ['1h', 3_600_000],
    ['1.5s', 1500],
    ['0s', 0],
  ] as const) {
    test(text, () => assert.equal(parseDuration(text), ms));
  }
  for (const text of ['', 's', '10', '10 s', '-1s', '1e3s', '1h30m', '.5s', '5.s', '10S', '1s\n', 'Infinitys']) {
    test(`${JSON.stringify(text)} is none`, () => assert.equal(parseDuration(text), undefined));
  }
});

describe('short flags and words beside flags', () => {
  const table = { namespace: { kind: 'text', value: 'NS', short: 'n', help: 'which' }, all: { kind: 'switch', help: 'all' } } as const;
  const usage = { command: 'handfast try', summary: 'Tries.', positionals: [{ name: 'from' }, { name: 'to', optional: true }] } as const;

  test('are read by letter and by place, among flags', () => {
    const { namespace, from, to, all } = parseFlags(['a', '-n', 'foo', 'b', '--all'], table, usage);
    assert.deepEqual([namespace, from, to, all], ['foo', 'a', 'b', true]);
    const fewer: string | undefined = parseFlags(['a', '--namespace', 'foo'], table, usage).to;
    assert.equal(fewer, undefined);
  });

  test('a list has every one that was given, and is empty without', () => {
    const list = { file: { kind: 'list', value: 'FILE', short: 'f', help: 'which' } } as const;
    const files: readonly string[] = parseFlags(['-f', 'a', '--file', 'b', '-f=c'], list, { command: 'x', summary: '' }).file;
    assert.deepEqual(files, ['a', 'b', '=c']);
    assert.deepEqual(parseFlags([], list, { command: 'x', summary: '' }).file, []);
  });

  test('are refused when one is missing, when there are too many, and where none is taken', () => {
    const { positionals: _, ...none } = usage;
    for (const [argv, of, message] of [
      [['-n', 'foo'], usage, /FROM is needed/],
      [['', '-n', 'foo'], usage, /FROM is needed/],
      [['a', 'b', 'c', '-n', 'foo'], usage, /"c" is one word too many/],
      [['a', '-n', 'foo'], none, /a/],
      [['a', '-x', 'foo'], usage, /-x/],
    ] as const)
      assert.throws(() => parseFlags(argv, table, of), { code: 'CONFIG_INVALID', message });
  });

  test('stand in the help', () => {
    assert.throws(() => parseFlags(['-h'], table, usage), /usage: handfast try FROM \[TO\] \[flags\][\s\S]*-n, --namespace NS/);
  });
});
