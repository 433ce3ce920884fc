// handfast up: CA, control and agent in one process, for one machine.

import { join } from 'node:path';
import { startAgent } from '../agent/agent.ts';
import { startCa } from '../ca/ca.ts';
import { startControl } from '../control/control.ts';
import { parseFlags } from '../flags.ts';
import { openLog } from '../observe/log.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { aborted } from './aborted.ts';
import { caFlags, configFlags, logFlags, rotationFlags, runFlags } from './shared-flags.ts';

const flags = {
  ...configFlags,
  ...caFlags,
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
  const sockets = {
    ca: join(config['run-dir'], 'ca.sock'),
    control: join(config['run-dir'], 'control.sock'),
    agent: join(config['run-dir'], 'agent.sock'),
  };
  const running: { stop(): Promise<void> }[] = [];
  try {
    running.unshift(
      await startControl({ configDir: config.config, socket: sockets.control, trustDomain, log: log.child({ part: 'control' }) }),
    );
    running.unshift(
      await startCa({
        stateDir: config.state,
        socket: sockets.ca,
        trustDomain,
        svidTtlMs: config['svid-ttl'],
        audience: config.audience,
        log: log.child({ part: 'ca' }),
        now,
      }),
    );
    running.unshift(
      await startAgent({
        socket: sockets.agent,
        ca: `unix:${sockets.ca}`,
        control: `unix:${sockets.control}`,
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
