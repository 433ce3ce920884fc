// The capture rules as text, and every refusal of a wrong command line with its allowed twin. Needs neither root nor iptables.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { scriptArguments } from '../../src/commands/iptables.ts';
import { HandfastError } from '../../src/errors.ts';

const SCRIPT = fileURLToPath(new URL('../../iptables/handfast-iptables.sh', import.meta.url));
const COMMAND = new URL('../../src/commands/iptables.ts', import.meta.url).href;

interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function sh(args: readonly string[], env: NodeJS.ProcessEnv = process.env): Outcome {
  const { status, stdout, stderr } = spawnSync('/bin/sh', [SCRIPT, ...args], { env, encoding: 'utf8' });
  return { code: status, stdout, stderr };
}

/** The rule lines of `print`, without comments, by family. */
function print(...options: string[]): { ipv4: string[]; ipv6: string[] } {
  const { code, stdout, stderr } = sh(['print', ...options]);
  assert.equal(code, 0, stderr);
  const tables = stdout.split(/^\*nat$/m).slice(1);
  const [ipv4 = [], ipv6 = []] = tables.map((table) => table.split('\n').filter((line) => line.startsWith('-')));
  return { ipv4, ipv6 };
}

/** The rules of one chain, in order. */
function chain(lines: readonly string[], name: string): string[] {
  return lines.filter((line) => line.startsWith(`-A ${name} `)).map((line) => line.slice(`-A ${name} `.length));
}

describe('the rules', () => {
  const expected = (passthrough: string, loopback: string) => [
    '-A HANDFAST_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006',
    '-A HANDFAST_REDIRECT -p tcp -j REDIRECT --to-ports 15001',
    '-A HANDFAST_INBOUND -p tcp --dport 15008 -j RETURN',
    '-A HANDFAST_INBOUND -p tcp --dport 15020 -j RETURN',
    '-A HANDFAST_INBOUND -p tcp --dport 15021 -j RETURN',
    '-A HANDFAST_INBOUND -p tcp -j HANDFAST_IN_REDIRECT',
    `-A HANDFAST_OUTPUT -o lo -s ${passthrough} -j RETURN`,
    `-A HANDFAST_OUTPUT -o lo ! -d ${loopback} -m owner --uid-owner 1337 -j HANDFAST_INBOUND`,
    `-A HANDFAST_OUTPUT -o lo ! -d ${loopback} -m owner --gid-owner 1337 -j HANDFAST_INBOUND`,
    '-A HANDFAST_OUTPUT -m owner --uid-owner 1337 -j RETURN',
    '-A HANDFAST_OUTPUT -m owner --gid-owner 1337 -j RETURN',
    '-A HANDFAST_OUTPUT -o lo -j RETURN',
    `-A HANDFAST_OUTPUT -d ${loopback} -j RETURN`,
    '-A HANDFAST_OUTPUT -p tcp -j HANDFAST_REDIRECT',
    '-A PREROUTING -p tcp -j HANDFAST_INBOUND',
    '-A OUTPUT -p tcp -j HANDFAST_OUTPUT',
  ];

  test('by default everything is captured, in both families alike', () => {
    const { ipv4, ipv6 } = print();
    assert.deepEqual(ipv4, expected('127.0.0.6/32', '127.0.0.0/8'));
    assert.deepEqual(ipv6, expected('::6/128', '::1/128'));
  });

  test('the printed text is complete: chains declared, transaction committed, ::6 mentioned', () => {
    const { stdout } = sh(['print']);
    for (const name of ['HANDFAST_INBOUND', 'HANDFAST_IN_REDIRECT', 'HANDFAST_OUTPUT', 'HANDFAST_REDIRECT']) {
      assert.equal(stdout.match(new RegExp(`^:${name} - \\[0:0\\]$`, 'gm'))?.length, 2);
    }
    assert.equal(stdout.match(/^COMMIT$/gm)?.length, 2);
    assert.match(stdout, /ip -6 addr replace ::6\/128 dev lo/);
  });

  test('--ipv6 off prints IPv4 alone', () => {
    assert.equal(print('--ipv6', 'off').ipv6.length, 0);
    assert.notEqual(print('--ipv6', 'on').ipv6.length, 0);
  });

  test('a value may follow an equals sign or a blank, and items may be padded', () => {
    const padded = sh(['print', '--exclude-inbound-ports= 22 , 2222']);
    assert.deepEqual(padded, sh(['print', '--exclude-inbound-ports', '22,2222']));
    assert.equal(padded.code, 0);
  });

  const INBOUND_FIXED = 3;
  const OUTBOUND_FIXED = 7;
  const TO_IN = '-j HANDFAST_IN_REDIRECT';
  const TO_OUT = '-j HANDFAST_REDIRECT';
  const cases: { name: string; options: string[]; inbound?: string[]; ipv4?: string[]; ipv6?: string[] }[] = [
    {
      name: 'excluded inbound ports return before the redirect',
      options: ['--exclude-inbound-ports', '22,2222'],
      inbound: ['-p tcp --dport 22 -j RETURN', '-p tcp --dport 2222 -j RETURN', `-p tcp ${TO_IN}`],
    },
    {
      name: 'listed inbound ports alone are redirected',
      options: ['--include-inbound-ports', '80,65535'],
      inbound: [`-p tcp --dport 80 ${TO_IN}`, `-p tcp --dport 65535 ${TO_IN}`],
    },
    { name: 'an empty list of inbound ports captures nothing inbound', options: ['--include-inbound-ports', ''], inbound: [] },
    {
      name: 'an inbound port in both lists is excluded',
      options: ['--include-inbound-ports', '80', '--exclude-inbound-ports', '80'],
      inbound: ['-p tcp --dport 80 -j RETURN', `-p tcp --dport 80 ${TO_IN}`],
    },
    {
      name: 'excluded outbound ports return before the redirect',
      options: ['--exclude-outbound-ports', '53,3306'],
      ipv4: ['-p tcp --dport 53 -j RETURN', '-p tcp --dport 3306 -j RETURN', `-p tcp ${TO_OUT}`],
      ipv6: ['-p tcp --dport 53 -j RETURN', '-p tcp --dport 3306 -j RETURN', `-p tcp ${TO_OUT}`],
    },
    {
      name: 'included outbound ports are captured beside the included ranges',
      options: ['--include-outbound-ports', '9090', '--include-outbound-ip-ranges', '10.96.0.0/12'],
      ipv4: [`-p tcp --dport 9090 ${TO_OUT}`, `-d 10.96.0.0/12 -p tcp ${TO_OUT}`],
      ipv6: [`-p tcp --dport 9090 ${TO_OUT}`],
    },
    {
      name: 'a mixed list of included ranges is split by family',
      options: ['--include-outbound-ip-ranges', '10.0.0.0/8,fd00::/8,192.168.0.0/16'],
      ipv4: [`-d 10.0.0.0/8 -p tcp ${TO_OUT}`, `-d 192.168.0.0/16 -p tcp ${TO_OUT}`],
      ipv6: [`-d fd00::/8 -p tcp ${TO_OUT}`],
    },
    {
      name: 'a mixed list of excluded ranges is split by family and precedes the redirect',
      options: ['--exclude-outbound-ip-ranges', '2001:db8::/32,169.254.169.254/32'],
      ipv4: ['-d 169.254.169.254/32 -j RETURN', `-p tcp ${TO_OUT}`],
      ipv6: ['-d 2001:db8::/32 -j RETURN', `-p tcp ${TO_OUT}`],
    },
    { name: 'empty outbound ranges capture nothing outbound', options: ['--include-outbound-ip-ranges', ''], ipv4: [], ipv6: [] },
    {
      name: 'excluded interfaces stay out both ways',
      options: ['--exclude-interfaces', 'eth1,net+'],
      inbound: ['-i eth1 -j RETURN', '-i net+ -j RETURN', `-p tcp ${TO_IN}`],
      ipv4: ['-o eth1 -j RETURN', '-o net+ -j RETURN', `-p tcp ${TO_OUT}`],
      ipv6: ['-o eth1 -j RETURN', '-o net+ -j RETURN', `-p tcp ${TO_OUT}`],
    },
  ];
  for (const { name, options, inbound, ipv4, ipv6 } of cases) {
    test(name, () => {
      const printed = print(...options);
      if (inbound !== undefined) {
        assert.deepEqual(chain(printed.ipv4, 'HANDFAST_INBOUND').slice(INBOUND_FIXED), inbound);
        assert.deepEqual(chain(printed.ipv6, 'HANDFAST_INBOUND').slice(INBOUND_FIXED), inbound);
      }
      if (ipv4 !== undefined) assert.deepEqual(chain(printed.ipv4, 'HANDFAST_OUTPUT').slice(OUTBOUND_FIXED), ipv4);
      if (ipv6 !== undefined) assert.deepEqual(chain(printed.ipv6, 'HANDFAST_OUTPUT').slice(OUTBOUND_FIXED), ipv6);
    });
  }

  test('listener ports, uid and gid can be others', () => {
    const { ipv4 } = print('--inbound-port', '25006', '--outbound-port', '25001', '--proxy-uid', '2000', '--proxy-gid', '3000');
    assert.deepEqual(chain(ipv4, 'HANDFAST_IN_REDIRECT'), ['-p tcp -j REDIRECT --to-ports 25006']);
    assert.deepEqual(chain(ipv4, 'HANDFAST_REDIRECT'), ['-p tcp -j REDIRECT --to-ports 25001']);
    const owners = chain(ipv4, 'HANDFAST_OUTPUT').flatMap((rule) => rule.match(/--[ug]id-owner \d+/) ?? []);
    assert.deepEqual(owners, ['--uid-owner 2000', '--gid-owner 3000', '--uid-owner 2000', '--gid-owner 3000']);
  });
});

/** option, the value refused, the part of it that the message names, its allowed twin. */
const LIST_REFUSALS: readonly (readonly [string, string, string, string])[] = [
  ['--exclude-inbound-ports', '0', '0', '1'],
  ['--exclude-inbound-ports', '70000', '70000', '65535'],
  ['--exclude-inbound-ports', 'abc', 'abc', '8080'],
  ['--exclude-inbound-ports', '22,,23', '22,,23', '22,23'],
  ['--exclude-inbound-ports', '22,', '22,', '22'],
  ['--exclude-inbound-ports', '22 23', '22 23', '22, 23'],
  ['--exclude-inbound-ports', '022', '022', '22'],
  ['--exclude-inbound-ports', '8000-9000', '8000-9000', '8000,9000'],
  ['--exclude-inbound-ports', '*', '*', ''],
  ['--include-inbound-ports', '*,80', '*,80', '*'],
  ['--include-inbound-ports', '80,*', '80,*', '80'],
  ['--include-outbound-ports', '-1', '-1', '1'],
  ['--include-outbound-ports', '*', '*', ''],
  ['--exclude-outbound-ports', '65536', '65536', '65535'],
  ['--exclude-outbound-ports', '99999999999999999999', '99999999999999999999', '9'],
  ['--include-outbound-ip-ranges', '*,10.0.0.0/8', '*,10.0.0.0/8', '*'],
  ['--include-outbound-ip-ranges', '10.0.0.0/8,*', '10.0.0.0/8,*', '10.0.0.0/8'],
  ['--exclude-outbound-ip-ranges', '*', '*', '0.0.0.0/0,::/0'],
  ['--exclude-outbound-ip-ranges', '10.0.0.0', '10.0.0.0', '10.0.0.0/32'],
  ['--exclude-outbound-ip-ranges', '10.0.0.0/33', '10.0.0.0/33', '10.0.0.0/32'],
  ['--exclude-outbound-ip-ranges', '10.0.0/8', '10.0.0/8', '10.0.0.0/8'],
  ['--exclude-outbound-ip-ranges', '10.0.0.256/32', '10.0.0.256/32', '10.0.0.255/32'],
  ['--exclude-outbound-ip-ranges', '10.0.0.0.0/8', '10.0.0.0.0/8', '10.0.0.0/8'],
  ['--exclude-outbound-ip-ranges', '010.0.0.0/8', '010.0.0.0/8', '10.0.0.0/8'],
  ['--exclude-outbound-ip-ranges', '10.0.0.0/08', '10.0.0.0/08', '10.0.0.0/8'],
  ['--exclude-outbound-ip-ranges', '10.0.0.0/', '10.0.0.0/', '10.0.0.0/0'],
  ['--exclude-outbound-ip-ranges', '10.0.0.0/8/8', '10.0.0.0/8/8', '10.0.0.0/8'],
  ['--exclude-outbound-ip-ranges', 'example.com/8', 'example.com/8', '192.0.2.0/24'],
  ['--exclude-outbound-ip-ranges', 'fd00::', 'fd00::', 'fd00::/128'],
  ['--exclude-outbound-ip-ranges', 'fd00::/129', 'fd00::/129', 'fd00::/128'],
  ['--exclude-outbound-ip-ranges', 'fd00:::/8', 'fd00:::/8', 'fd00::/8'],
  ['--exclude-outbound-ip-ranges', '1::2::3/64', '1::2::3/64', '1:2::3/64'],
  ['--exclude-outbound-ip-ranges', '1:2:3:4:5:6:7/64', '1:2:3:4:5:6:7/64', '1:2:3:4:5:6:7:8/64'],
  ['--exclude-outbound-ip-ranges', '1:2:3:4:5:6:7:8:9/64', '1:2:3:4:5:6:7:8:9/64', '1:2:3:4:5:6:7::/64'],
  ['--exclude-outbound-ip-ranges', ':1:2:3:4:5:6:7:8/64', ':1:2:3:4:5:6:7:8/64', '::2:3:4:5:6:7:8/64'],
  ['--exclude-outbound-ip-ranges', '12345::/16', '12345::/16', '1234::/16'],
  ['--exclude-outbound-ip-ranges', 'fe80::1%eth0/64', 'fe80::1%eth0/64', 'FE80::1/64'],
  ['--exclude-outbound-ip-ranges', '::ffff:10.0.0.0/104', '::ffff:10.0.0.0/104', '10.0.0.0/8'],
];

const OTHER_REFUSALS: readonly (readonly [string, string, string, string])[] = [
  ['--exclude-interfaces', 'eth0 -j ACCEPT', 'eth0 -j ACCEPT', 'eth0'],
  ['--exclude-interfaces', 'eth0\n-A OUTPUT', 'eth0\n-A OUTPUT', 'eth0,eth1'],
  ['--exclude-interfaces', '-j', '-j', 'j'],
  ['--exclude-interfaces', 'sixteen-letters-', 'sixteen-letters-', 'fifteen-letters'],
  ['--exclude-interfaces', 'eth+0', 'eth+0', 'eth+'],
  ['--exclude-interfaces', '!eth0', '!eth0', 'eth0.100'],
  ['--inbound-port', '0', '0', '1'],
  ['--inbound-port', '80,81', '80,81', '80'],
  ['--inbound-port', '15001', '15001', '15002'],
  ['--inbound-port', '15008', '15008', '15007'],
  ['--outbound-port', '70000', '70000', '60000'],
  ['--outbound-port', '', '', '15001'],
  ['--proxy-uid', '0', '0', '1'],
  ['--proxy-uid', 'proxy', 'proxy', '1338'],
  ['--proxy-gid', '4294967295', '4294967295', '4294967294'],
  ['--proxy-gid', '-1', '-1', '2'],
  ['--ipv6', 'yes', 'yes', 'on'],
  ['--ipv6', '', '', 'off'],
];

describe('refusals', () => {
  for (const [option, value, named, allowed] of [...LIST_REFUSALS, ...OTHER_REFUSALS]) {
    test(`${option} ${JSON.stringify(value)} is refused, ${JSON.stringify(allowed)} is allowed`, () => {
      const refused = sh(['print', option, value]);
      assert.equal(refused.code, 2, refused.stdout);
      assert.equal(refused.stdout, '');
      // --inbound-port 15001 clashes with the other listener, which is the one that the message names.
      assert.match(refused.stderr, value === '15001' ? /--outbound-port/ : new RegExp(`${option}: `));
      assert.ok(refused.stderr.includes(`'${named}' is not accepted`), refused.stderr);
      assert.match(refused.stderr, /accepted: \S/);
      const twin = sh(['print', option, allowed]);
      assert.equal(twin.code, 0, twin.stderr);
    });
  }

  const commandLines: [string, string[], RegExp, string[]][] = [
    ['no command', [], /command: .*apply, clean or print/, ['print']],
    ['an unknown command', ['aply'], /command: 'aply'/, ['print']],
    ['two commands', ['print', 'clean'], /'clean' is not accepted/, ['print']],
    ['an unknown option', ['print', '--exclude-ports', '80'], /option: '--exclude-ports'/, ['print', '--exclude-inbound-ports', '80']],
    ['an unknown option with =', ['print', '--exclude-ports=80'], /option: '--exclude-ports'/, ['print', '--exclude-inbound-ports=80']],
    ['an option without its value', ['print', '--ipv6'], /--ipv6: .*value is missing/, ['print', '--ipv6', 'on']],
    ['a dry run of print', ['print', '--dry-run'], /--dry-run/, ['print']],
  ];
  for (const [name, args, message, allowed] of commandLines) {
    test(`${name} is refused`, () => {
      const refused = sh(args);
      assert.equal(refused.code, 2);
      assert.match(refused.stderr, message);
      assert.equal(sh(allowed).code, 0);
    });
  }

  test('--help names every option, its annotation and the exit codes', () => {
    const { code, stdout } = sh(['--help']);
    assert.equal(code, 0);
    for (const [option] of [...LIST_REFUSALS, ...OTHER_REFUSALS]) assert.ok(stdout.includes(option), option);
    for (const annotation of ['includeInboundPorts', 'excludeInboundPorts', 'includeOutboundPorts', 'excludeOutboundPorts']) {
      assert.ok(stdout.includes(`traffic.sidecar.istio.io/${annotation}`), annotation);
    }
    assert.match(stdout, /Exit codes/);
  });
});

describe('what the machine lacks', () => {
  /** Runs the script with nothing on PATH but the given scripts. */
  function shWith(tools: Readonly<Record<string, string>>, args: readonly string[]): Outcome {
    const bin = mkdtempSync(join(tmpdir(), 'hf-ipt-'));
    try {
      for (const [name, body] of Object.entries(tools)) {
        writeFileSync(join(bin, name), `#!/bin/sh\n${body}\n`);
        chmodSync(join(bin, name), 0o755);
      }
      return sh(args, { PATH: bin });
    } finally {
      rmSync(bin, { recursive: true });
    }
  }
  const working = {
    id: 'echo 0',
    'iptables-save': 'exit 0',
    'iptables-restore': 'exit 0',
    'ip6tables-save': 'exit 0',
    'ip6tables-restore': 'exit 0',
    ip: 'exit 0',
  };

  for (const action of ['apply', 'clean']) {
    test(`${action} without root says so and names the way out`, () => {
      const outcome = shWith({ ...working, id: 'echo 1000' }, [action]);
      assert.equal(outcome.code, 1);
      assert.match(outcome.stderr, /needs root.*sudo.*NET_ADMIN/);
      assert.equal(shWith({ ...working, id: 'echo 1000' }, ['print']).code, 0);
    });

    test(`${action} without iptables says so and names the package`, () => {
      const outcome = shWith({ id: 'echo 0' }, [action, '--ipv6', 'off']);
      assert.equal(outcome.code, 1);
      assert.match(outcome.stderr, /not on PATH.*apt-get install iptables/);
      assert.equal(shWith({ id: 'echo 0' }, ['print']).code, 0);
    });
  }

  test('apply without a nat table fails before it touches anything, and names the usual causes', () => {
    const outcome = shWith({ ...working, 'iptables-save': 'echo no table >&2; exit 1', 'iptables-restore': 'echo touched; exit 0' }, [
      'apply',
      '--ipv6',
      'off',
    ]);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /no table\n.*nothing was changed.*nat table/s);
    assert.doesNotMatch(outcome.stdout, /touched/);
  });

  test('a save that never shows what the restore did is a failure, not a success', () => {
    const outcome = shWith({ ...working, 'iptables-restore': 'while read -r line; do :; done; exit 0' }, ['apply', '--ipv6', 'off']);
    assert.equal(outcome.code, 1);
    assert.match(outcome.stderr, /do both belong to the same iptables/);
    assert.match(outcome.stderr, /Everything is as it was before/);
  });

  test('a dry run without root shows the rules as if there were none', () => {
    const outcome = shWith({ ...working, id: 'echo 1000' }, ['apply', '--dry-run', '--ipv6', 'off']);
    assert.equal(outcome.code, 0);
    assert.match(outcome.stdout, /shown as if there were none/);
    assert.match(outcome.stdout, /-A PREROUTING -p tcp -j HANDFAST_INBOUND/);
  });
});

describe('the command handfast iptables', () => {
  test('normalises CIDRs to their networks, drops duplicates, keeps the rest as given', () => {
    assert.deepEqual(
      scriptArguments([
        'apply',
        '--dry-run',
        '--include-outbound-ip-ranges',
        '10.1.2.3/8, FD00:0:0::1/8,10.0.0.0/8',
        '--exclude-inbound-ports',
        '22, 22,80',
        '--include-inbound-ports=*',
        '--ipv6=off',
      ]),
      [
        'apply',
        '--dry-run',
        '--include-inbound-ports=*',
        '--exclude-inbound-ports=22,80',
        '--include-outbound-ip-ranges=10.0.0.0/8,fd00::/8',
        '--ipv6=off',
      ],
    );
  });

  for (const [option, value, named, allowed] of LIST_REFUSALS) {
    test(`${option}=${value} is refused, ${JSON.stringify(allowed)} is allowed, as in the script`, () => {
      assert.throws(
        () => scriptArguments(['print', `${option}=${value}`]),
        (error) =>
          error instanceof HandfastError &&
          error.code === 'CONFIG_INVALID' &&
          error.message.startsWith(`${option}: `) &&
          error.message.includes(`'${named}'`),
      );
      const args = scriptArguments(['print', `${option}=${allowed}`]);
      assert.equal(sh(args).code, 0);
    });
  }

  for (const argv of [[], ['aply'], ['print', 'clean'], ['print', '--nope'], ['print', '--ipv6'], ['print', '--dry-run']]) {
    test(`'${argv.join(' ')}' is refused with a code`, () => {
      assert.throws(() => scriptArguments(argv), { name: 'HandfastError', code: 'CONFIG_INVALID' });
    });
  }

  test('--help asks the script', () => {
    assert.deepEqual(scriptArguments(['--help']), ['--help']);
    assert.deepEqual(scriptArguments(['apply', '-h']), ['--help']);
  });

  /** `run` in a process of its own, as its output is inherited. */
  function runCommand(argv: readonly string[]): Outcome {
    const program = `import { run } from ${JSON.stringify(COMMAND)};
      process.exitCode = await run(process.argv.slice(1), new AbortController().signal);`;
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program, '--', ...argv], {
      encoding: 'utf8',
    });
    return { code: status, stdout, stderr };
  }

  test('prints what the script prints', () => {
    const direct = sh(['print', '--exclude-outbound-ip-ranges', '10.0.0.0/8']);
    const command = runCommand(['print', '--exclude-outbound-ip-ranges', '10.9.8.7/8']);
    assert.deepEqual(command, direct);
    assert.equal(command.code, 0);
  });

  test('hands on the exit code of the script', () => {
    const refused = runCommand(['print', '--ipv6', 'maybe']);
    assert.equal(refused.code, 2);
    assert.match(refused.stderr, /--ipv6: 'maybe'/);
  });
});
