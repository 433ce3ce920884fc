// `handfast iptables apply|clean|print`: checks and normalises the options, then hands over to the script that an init container runs.

import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Address4, Address6 } from 'ip-address';
import { HandfastError, messageOf } from '../errors.ts';

const COMMANDS = ['apply', 'clean', 'print'];

/** The script lies beside src/ and dist/, so that one relative path serves both. */
const SCRIPT = fileURLToPath(new URL('../../iptables/handfast-iptables.sh', import.meta.url));

type Normalise = (option: string, value: string) => string;

const OPTIONS: Readonly<Record<string, Normalise>> = {
  'include-inbound-ports': orAll(ports),
  'exclude-inbound-ports': ports,
  'include-outbound-ports': ports,
  'exclude-outbound-ports': ports,
  'include-outbound-ip-ranges': orAll(ranges),
  'exclude-outbound-ip-ranges': ranges,
  'exclude-interfaces': asGiven,
  'inbound-port': asGiven,
  'outbound-port': asGiven,
  'proxy-uid': asGiven,
  'proxy-gid': asGiven,
  ipv6: asGiven,
};

/** Runs the script with inherited stdio. Returns its exit code; throws CONFIG_INVALID for a wrong command line. */
export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const args = scriptArguments(argv);
  signal.throwIfAborted();
  return new Promise((resolve, reject) => {
    const child = spawn('sh', [SCRIPT, ...args], { stdio: 'inherit' });
    // The script rolls back and ends by itself; killing it outright could leave it half way.
    const interrupt = () => child.kill('SIGTERM');
    signal.addEventListener('abort', interrupt, { once: true });
    child.once('error', (cause) => {
      signal.removeEventListener('abort', interrupt);
      reject(new HandfastError('PLATFORM_UNSUPPORTED', `the capture script needs a POSIX shell: ${messageOf(cause)}`, { cause }));
    });
    child.once('close', (code, killedBy) => {
      signal.removeEventListener('abort', interrupt);
      resolve(code ?? 128 + (killedBy === null ? 0 : constants.signals[killedBy]));
    });
  });
}

/** The script's arguments for this command line: addresses and ports checked, CIDRs as networks, duplicates dropped. Throws CONFIG_INVALID. */
export function scriptArguments(argv: readonly string[]): string[] {
  const { values, positionals } = parse(argv);
  if (values.help === true) return ['--help'];
  const [command, ...rest] = positionals;
  if (command === undefined || !COMMANDS.includes(command) || rest.length > 0) {
    throw invalid('command', positionals.join(' '), 'apply, clean or print, and the options shown by --help');
  }
  const args = [command];
  if (values['dry-run'] === true) {
    if (command === 'print') throw invalid('--dry-run', 'print', 'apply or clean: print changes nothing anyway');
    args.push('--dry-run');
  }
  for (const [name, normalise] of Object.entries(OPTIONS)) {
    const value = values[name];
    if (typeof value === 'string') args.push(`--${name}=${normalise(`--${name}`, value)}`);
  }
  return args;
}

function parse(argv: readonly string[]): { values: Record<string, string | boolean | undefined>; positionals: string[] } {
  const texts = Object.fromEntries(Object.keys(OPTIONS).map((name) => [name, { type: 'string' as const }]));
  try {
    return parseArgs({
      args: [...argv],
      options: { ...texts, 'dry-run': { type: 'boolean' as const }, help: { type: 'boolean' as const, short: 'h' } },
      allowPositionals: true,
      strict: true,
    });
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `iptables: ${messageOf(cause)}; --help shows the options`, { cause });
  }
}

function orAll(normalise: Normalise): Normalise {
  return (option, value) => (value.trim() === '*' ? '*' : normalise(option, value));
}

/** What needs no library is checked by the script alone, which must do it anyway when it runs without Node.js. */
function asGiven(_option: string, value: string): string {
  return value;
}

function ports(option: string, value: string): string {
  return list(option, value, (item) => {
    if (!/^[1-9]\d{0,4}$/.test(item) || Number(item) > 65_535) throw invalid(option, item, 'ports 1-65535 separated by commas');
    return item;
  });
}

function ranges(option: string, value: string): string {
  return list(option, value, (item) => {
    const network = networkOf(item);
    if (network === undefined) throw invalid(option, item, 'CIDRs such as 10.0.0.0/8 or fd00::/8 separated by commas');
    return network;
  });
}

function list(option: string, value: string, normalise: (item: string) => string): string {
  if (value.trim() === '') return '';
  const items = value.split(',').map((item) => item.trim());
  if (items.includes('')) throw invalid(option, value, 'a list without empty items');
  if (items.includes('*')) throw invalid(option, value, "'*' alone and only where something is included");
  return [...new Set(items.map(normalise))].join(',');
}

/** The network of a CIDR of either family: host bits are dropped silently, as in Istio. IPv4 inside IPv6 matches no packet, so it is none. */
function networkOf(cidr: string): string | undefined {
  if (!/^[0-9a-f.:]+\/(0|[1-9]\d{0,2})$/i.test(cidr)) return undefined;
  if (Address4.isValid(cidr)) return new Address4(cidr).networkForm();
  if (cidr.includes('.') || !Address6.isValid(cidr)) return undefined;
  return new Address6(cidr).networkForm();
}

function invalid(option: string, value: string, accepted: string): HandfastError {
  return new HandfastError('CONFIG_INVALID', `${option}: '${value}' is not accepted; accepted: ${accepted}`);
}
