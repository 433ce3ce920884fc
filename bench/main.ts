// `npm run bench -- handshake|proxy`: our sidecars beside haproxy and nginx, in one run, as ratios; `-- sds`: one agent with thousands of streams; `-- policy`: a big mesh.
// See bench/README.md.

import { spawnSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { requireNamespaces } from '../test/support/namespaces.ts';
import { benchHandshake } from './handshake.ts';
import { type Generator, generators } from './load.ts';
import { describeGenerator, describeMachine, handfastVersion } from './machine.ts';
import { benchPair } from './pair.ts';
import { findPeers } from './peers.ts';
import { benchPolicy } from './policy.ts';
import { type Report, renderScenario, summarise } from './report.ts';
import type { Bench, BenchOptions, ScenarioResult } from './scenario.ts';
import { benchSds } from './sds.ts';

const HELP = `usage: npm run bench -- handshake|proxy ... [options]
       npm run bench -- sds [--streams 2000] [--json FILE]
       npm run bench -- policy [--workloads 100000] [--policies 10000] [--json FILE]

Our sidecars beside haproxy and nginx on this machine, in one run, as ratios. Needs root, iptables, openssl and taskset.

  handshake           full mTLS handshakes against one serving proxy
  proxy               HTTP through a pair of proxies with mTLS between them: a new connection for each request,
                      1 connection kept alive, 64 kept alive

  sds                 SDS streams on one agent through a change of trust bundle and a rotation of every certificate: time to the last ACK,
                      CPU and memory of agent and CA

  policy              from objects to decisions, in one process: time to resolve the mesh, time and memory of one change, cost of a decision
                      with 10 workloads and with this many

  --seconds N         length of a round (default 3)
  --rounds N          rounds of each peer, in turn (default 3)
  --connections N     concurrent handshakes (default 16)
  --generator NAME    for proxy: wrk (default where installed) or node, see bench/README.md
  --peers LIST        of haproxy,nginx (default both); those not installed are skipped
  --max-steal PERCENT a round with more of the host's time stolen is repeated, twice at most (default 10)
  --nginx-modules DIR where ngx_stream_module.so is (default /usr/lib/nginx/modules)
  --json FILE         write the results there too
  --help              this text
`;

/** A mistake of whoever called, answered without a stack trace. */
class Refused extends Error {}

const commands = { handshake: benchHandshake, proxy: benchPair } as const satisfies Record<string, Bench>;
type Command = keyof typeof commands;

function readCommandLine() {
  let parsed: ReturnType<typeof parse>;
  try {
    parsed = parse();
  } catch (cause) {
    throw new Refused(`${cause instanceof Error ? cause.message : cause}\n\n${HELP}`, { cause });
  }
  const { values, positionals } = parsed;
  if (values.help) return undefined;
  const unknown = positionals.find((name) => !(name in commands));
  if (unknown !== undefined || positionals.length === 0) {
    throw new Refused(`${unknown === undefined ? 'what is to be measured?' : `there is no bench ${JSON.stringify(unknown)}`}\n\n${HELP}`);
  }
  const number = (name: 'seconds' | 'rounds' | 'connections' | 'max-steal', bounds: { min: number; max: number }) => {
    const value = Number(values[name]);
    if (!Number.isInteger(value) || value < bounds.min || value > bounds.max)
      throw new Refused(`--${name} ${values[name]}: a whole number from ${bounds.min} to ${bounds.max} is accepted`);
    return value;
  };
  const generator = generators.find((name) => name === values.generator);
  if (generator === undefined) throw new Refused(`--generator ${values.generator}: ${generators.join(' or ')} is accepted`);
  return {
    generator,
    commands: positionals as Command[],
    seconds: number('seconds', { min: 1, max: 60 }),
    rounds: number('rounds', { min: 1, max: 100 }),
    connections: number('connections', { min: 1, max: 256 }),
    maxStealPercent: number('max-steal', { min: 0, max: 100 }),
    peers: new Set(values.peers.split(',')),
    nginxModules: values['nginx-modules'],
    json: values.json,
  };
}

function parse() {
  return parseArgs({
    allowPositionals: true,
    options: {
      seconds: { type: 'string', default: '3' },
      rounds: { type: 'string', default: '3' },
      connections: { type: 'string', default: '16' },
      generator: { type: 'string', default: isInstalled('wrk') ? 'wrk' : 'node' },
      peers: { type: 'string', default: 'haproxy,nginx' },
      'max-steal': { type: 'string', default: '10' },
      'nginx-modules': { type: 'string', default: '/usr/lib/nginx/modules' },
      json: { type: 'string' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
}

/** Says what is missing before anything is started. */
function requireTools(generator: Generator): void {
  if (Number(process.versions.node.split('.')[0]) < 24)
    throw new Refused(`Node.js 24 is needed, this is ${process.version}: use npm run bench`);
  const reason = requireNamespaces();
  if (reason !== false) throw new Refused(`the bench cannot run here: ${reason}`);
  for (const [tool, from] of [
    ...(generator === 'wrk' ? ([['wrk', 'wrk']] as const) : []),
    ['taskset', 'util-linux'],
    ['iptables', 'iptables'],
    ['openssl', 'openssl'],
  ] as const) {
    if (!isInstalled(tool)) throw new Refused(`'${tool}' is not installed (Debian: apt install ${from})`);
  }
}

function isInstalled(tool: string): boolean {
  return spawnSync(tool, ['--version'], { stdio: 'ignore' }).error === undefined;
}

async function main(): Promise<void> {
  // Where Debian keeps haproxy, nginx and iptables, and where su's PATH does not look.
  process.env.PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;
  if (process.argv[2] === 'sds') return benchSds(process.argv.slice(3));
  if (process.argv[2] === 'policy') return benchPolicy(process.argv.slice(3));
  const options = readCommandLine();
  if (options === undefined) {
    process.stdout.write(HELP);
    return;
  }
  requireTools(options.generator);
  const { found: peers, skipped } = findPeers({ wanted: options.peers, nginxModules: options.nginxModules });
  const machine = { ...describeMachine(), generator: describeGenerator(options.generator) };
  const say = (line: string) => process.stdout.write(`${line}\n`);
  say(
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGb} GB, ${machine.kernel}; Node.js ${machine.node} with OpenSSL ${machine.openssl}`,
  );
  for (const { peer, reason } of skipped) say(`${peer} is skipped: ${reason}`);
  if (options.commands.includes('proxy')) say(`HTTP load by ${machine.generator}`);

  const bench: BenchOptions = {
    ...options,
    version: handfastVersion(),
    peers,
    progress: (line) => process.stderr.write(`  ${line}\n`),
  };
  const results: ScenarioResult[] = [];
  for (const command of new Set(options.commands)) results.push(...(await commands[command](bench)));

  say('');
  for (const result of results) say(renderScenario(result));
  if (options.json !== undefined) {
    const report: Report = {
      machine,
      skipped,
      scenarios: results.map(({ name, performances }) => ({ name, results: performances.map(summarise) })),
    };
    await writeFile(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
  }
  // A peer that is disqualified is an observation; if it is us, something is broken.
  if (
    results.some(({ performances }) => performances.some(({ peer, disqualified }) => peer === 'handfast' && disqualified !== undefined))
  ) {
    process.exitCode = 1;
  }
}

main().catch((error: unknown) => {
  process.stderr.write(`bench: ${error instanceof Refused ? error.message : error instanceof Error ? error.stack : error}\n`);
  process.exitCode = error instanceof Refused ? 2 : 1;
});
