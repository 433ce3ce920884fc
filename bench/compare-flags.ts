// The command line of `bench compare`, read before anything is started.

import { parseArgs } from 'node:util';
import { peerNames, type ScenarioName, scenarioNames } from './scenario.ts';

export const COMPARE_HELP = `usage: npm run bench -- compare [options]

Our sidecars beside others on this machine, in one run: rounds in turn, CPU of the proxies per operation, ratios. Needs root, iptables, openssl,
taskset and wrk; \`make bench-peers\` installs the others. A whole run takes about 25 minutes and writes bench/results/.

  --peers LIST        of ${peerNames.join(',')} (default all);
                      those not installed are named and left out
  --scenarios LIST    of ${scenarioNames.slice(0, 6).join(',')},
                      ${scenarioNames.slice(6).join(',')} (default all)
  --quick             rounds of 1 s, one each, no repeats, no warm-up, 500 idle connections: to see that it works
  --seconds N         length of a round (default 2)
  --rounds N          rounds of each, in turn (default 3)
  --max-steal PERCENT a round with more of the host's time stolen is repeated, twice at most (default 10)
  --json FILE         write the results there too
  --results DIR       where table, chart and JSON go (default bench/results for a whole run; nowhere for --quick or a part)
  --nginx-modules DIR where ngx_stream_module.so is (default /usr/lib/nginx/modules)
  --help              this text
`;

/** A mistake of whoever called, answered without a stack trace. */
export class Refused extends Error {}

export interface CompareOptions {
  readonly peers: ReadonlySet<string>;
  readonly scenarios: readonly ScenarioName[];
  readonly seconds: number;
  readonly rounds: number;
  readonly repeats: number;
  readonly warmUp: boolean;
  readonly idleConnections: number;
  readonly maxStealPercent: number;
  readonly nginxModules: string;
  readonly json: string | undefined;
  /** Undefined: not written. `true`: where they stand in the repository. */
  readonly results: string | true | undefined;
}

/** Undefined when help is asked for. */
export function readCompareFlags(args: readonly string[]): CompareOptions | undefined {
  let values: ReturnType<typeof parse>['values'];
  try {
    ({ values } = parse(args));
  } catch (cause) {
    throw new Refused(`${cause instanceof Error ? cause.message : cause}\n\n${COMPARE_HELP}`, { cause });
  }
  if (values.help) return undefined;
  const number = (name: 'seconds' | 'rounds' | 'max-steal', bounds: { otherwise: number; min: number; max: number }) => {
    const given = values[name];
    const value = given === undefined ? bounds.otherwise : Number(given);
    if (!Number.isInteger(value) || value < bounds.min || value > bounds.max)
      throw new Refused(`--${name} ${given}: a whole number from ${bounds.min} to ${bounds.max} is accepted`);
    return value;
  };
  const list = <Name extends string>(name: 'peers' | 'scenarios', known: readonly Name[]): Name[] => {
    const given = values[name]?.split(',') ?? known;
    const unknown = given.find((entry) => !known.some((candidate) => candidate === entry));
    if (unknown !== undefined) throw new Refused(`--${name} ${unknown}: of ${known.join(', ')}`);
    // In our order, whatever theirs is.
    return known.filter((candidate) => given.includes(candidate));
  };
  const { quick } = values;
  const scenarios = list('scenarios', scenarioNames);
  const peers = list('peers', peerNames);
  const whole = !quick && scenarios.length === scenarioNames.length && peers.length === peerNames.length;
  return {
    peers: new Set(peers),
    scenarios,
    seconds: number('seconds', { otherwise: quick ? 1 : 2, min: 1, max: 60 }),
    rounds: number('rounds', { otherwise: quick ? 1 : 3, min: 1, max: 100 }),
    repeats: quick ? 0 : 2,
    warmUp: !quick,
    idleConnections: quick ? 500 : 10_000,
    maxStealPercent: number('max-steal', { otherwise: 10, min: 0, max: 100 }),
    nginxModules: values['nginx-modules'],
    json: values.json,
    results: values.results ?? (whole ? true : undefined),
  };
}

function parse(args: readonly string[]) {
  return parseArgs({
    args: [...args],
    options: {
      peers: { type: 'string' },
      scenarios: { type: 'string' },
      quick: { type: 'boolean', default: false },
      seconds: { type: 'string' },
      rounds: { type: 'string' },
      'max-steal': { type: 'string' },
      json: { type: 'string' },
      results: { type: 'string' },
      'nginx-modules': { type: 'string', default: '/usr/lib/nginx/modules' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
}
