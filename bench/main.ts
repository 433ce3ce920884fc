// `npm run bench -- compare`: our sidecars beside others; `-- sds`: one agent with thousands of streams; `-- policy`: a big mesh; `-- kube`: a big cluster; `-- churn`: an hour of connections that come and go. See bench/README.md.

import { benchChurn } from './churn.ts';
import { benchCompare } from './compare.ts';
import { Refused } from './compare-flags.ts';
import { benchKube } from './kube.ts';
import { benchPolicy } from './policy.ts';
import { benchSds } from './sds.ts';

const HELP = `usage: npm run bench -- compare [options]    our sidecars beside others (--help has the options)
       npm run bench -- sds [--streams 2000] [--json FILE]
       npm run bench -- policy [--workloads 100000] [--policies 10000] [--json FILE]
       npm run bench -- churn [--minutes 60] [--per-second 150] [--json FILE]
       sh test-kube/run.sh -- npm run bench -- kube [--pods 5000] [--services 1000] [--json FILE]

  compare   handshakes, HTTP, bulk, idle connections, rotation and cold start, ours and theirs in turn, as ratios
  sds       SDS streams on one agent through a change of trust bundle and a rotation of every certificate: time to the last ACK,
            CPU and memory of agent and CA
  policy    from objects to decisions, in one process: time to resolve the mesh, time and memory of one change, cost of a decision
            with 10 workloads and with this many
  churn     memory of a pair of sidecars while connections come and go and certificates are replaced
  kube      pods and services in a real API server: control's memory and time to its first snapshot, time from a policy to a proxy,
            memory of agent and sidecar
`;

const benches = { compare: benchCompare, sds: benchSds, policy: benchPolicy, kube: benchKube, churn: benchChurn } as const;

async function main([name = '', ...args]: readonly string[]): Promise<void> {
  // Where Debian keeps haproxy, nginx and iptables, and where su's PATH does not look.
  process.env.PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;
  if (name === '--help' || name === '-h') {
    process.stdout.write(HELP);
    return;
  }
  if (name !== 'compare' && name !== 'sds' && name !== 'policy' && name !== 'kube' && name !== 'churn')
    throw new Refused(`${name === '' ? 'what is to be measured?' : `there is no bench ${JSON.stringify(name)}`}\n\n${HELP}`);
  await benches[name](args);
}

main(process.argv.slice(2)).catch((error: unknown) => {
  process.stderr.write(`bench: ${error instanceof Refused ? error.message : error instanceof Error ? error.stack : error}\n`);
  process.exitCode = error instanceof Refused ? 2 : 1;
});
