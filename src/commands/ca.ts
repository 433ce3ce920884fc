// handfast ca: the certificate authority alone.

import { startCa } from '../ca/ca.ts';
import { parseFlags } from '../flags.ts';
import { openLog } from '../observe/log.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { aborted } from './aborted.ts';
import { caFlags, logFlags } from './shared-flags.ts';

const flags = {
  ...caFlags,
  socket: { kind: 'text', value: 'PATH', default: '/run/handfast/ca.sock', help: 'unix socket for agents' },
  ...logFlags,
} as const;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast ca',
    summary: 'Proves tokens and signs certificates for the workloads that hold them.',
  });
  const { log, close } = openLog({ role: 'ca', level: config['log-level'] });
  try {
    const ca = await startCa({
      stateDir: config.state,
      socket: config.socket,
      trustDomain: parseTrustDomain(config['trust-domain']),
      svidTtlMs: config['svid-ttl'],
      audience: config.audience,
      log,
      now: Date.now,
    });
    await aborted(signal);
    await ca.stop();
    return 0;
  } finally {
    close();
  }
}
