// handfast control: registry and policy from a directory, for agents, alone.

import { startControl } from '../control/control.ts';
import { parseFlags } from '../flags.ts';
import { openLog } from '../observe/log.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { aborted } from './aborted.ts';
import { caFlags, configFlags, logFlags } from './shared-flags.ts';

const flags = {
  ...configFlags,
  'trust-domain': caFlags['trust-domain'],
  socket: { kind: 'text', value: 'PATH', default: '/run/handfast/control.sock', help: 'unix socket for agents' },
  ...logFlags,
} as const;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast control',
    summary: 'Resolves registry and policy, and serves them to agents.',
  });
  const { log, close } = openLog({ role: 'control', level: config['log-level'] });
  try {
    const control = await startControl({
      configDir: config.config,
      socket: config.socket,
      trustDomain: parseTrustDomain(config['trust-domain']),
      log,
    });
    await aborted(signal);
    await control.stop();
    return 0;
  } finally {
    close();
  }
}
