// handfast up: CA, control and agent in one process, for one machine.

import { join } from 'node:path';
import { startAgent } from '../agent/agent.ts';
import { startCa } from '../ca/ca.ts';
import { startControl } from '../control/control.ts';
import { parseFlags } from '../flags.ts';
import { openLog } from '../observe/log.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { aborted } from './aborted.ts';
import { workloadProvers } from './provers.ts';
import {
  caFlags,
  configFlags,
  logFlags,
  parseJwtIssuer,
  proverFlags,
  rotationFlags,
  runFlags,
  secretFlags,
  secretsOf,
  workloadFlags,
} from './shared-flags.ts';

const flags = {
  ...configFlags,
  ...secretFlags,
  ...caFlags,
  ...proverFlags,
  ...workloadFlags,
  ...rotationFlags,
  ...runFlags,
  ...logFlags,
} as const;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast up',
    summary: 'A whole control plane for one machine: CA, control and node agent in one process.',
  });
  const { log, close } = openLog({ role: 'up', level: config['log-level'] });
  const now = Date.now;
  const trustDomain = parseTrustDomain(config['trust-domain']);
  const at = (name: string) => join(config['run-dir'], `${name}.sock`);
  const secretsDir = config['secrets-dir'];
  const running: { stop(): Promise<void> }[] = [];
  try {
    running.unshift(
      await startControl({
        objects: { directory: config.config },
        secrets: secretsOf(config, secretsDir === undefined ? undefined : { folder: secretsDir }),
        socket: at('control'),
        operatorSocket: at('control-operator'),
        trustDomain,
        stateDir: join(config.state, 'control'),
        log: log.child({ part: 'control' }),
        now,
      }),
    );
    running.unshift(
      await startCa({
        stateDir: config.state,
        socket: at('ca'),
        operatorSocket: at('ca-operator'),
        trustDomain,
        svidTtlMs: config['svid-ttl'],
        // Nobody joins here: every part is on this machine.
        nodeTtlMs: config['svid-ttl'],
        jwtTtlMs: config['jwt-ttl'],
        jwtIssuer: parseJwtIssuer(config['jwt-issuer']),
        audience: config.audience,
        prover: workloadProvers(config, { log, now }),
        tokensAlone: false,
        log: log.child({ part: 'ca' }),
        now,
      }),
    );
    running.unshift(
      await startAgent({
        socket: at('agent'),
        workloadSocket: at('workload'),
        identitySocket: config.workloads === undefined ? undefined : at('identity'),
        operatorSocket: at('agent-operator'),
        workloadsFile: config.workloads,
        trustDomain,
        ca: `unix:${at('ca')}`,
        caKind: 'handfast',
        caServerName: undefined,
        trustBundleFile: undefined,
        stateDir: undefined,
        joinTokenFile: undefined,
        controls: [`unix:${at('control')}`],
        rotateEveryMs: config['rotate-every'],
        log: log.child({ part: 'agent' }),
        now,
      }),
    );
    await aborted(signal);
    return 0;
  } finally {
    for (const part of running) await part.stop();
    close();
  }
}
