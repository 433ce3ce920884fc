// handfast control: registry and policy from a directory, for agents, alone.

import { startControl } from '../control/control.ts';
import { parseFlags } from '../flags.ts';
import { openLog } from '../observe/log.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { aborted } from './aborted.ts';
import { configFlags, listenFlags, logFlags, nodeFlags, nodeOptions, parseListen, trustDomainFlags } from './shared-flags.ts';

const flags = {
  ...configFlags,
  ...trustDomainFlags,
  socket: { kind: 'text', value: 'PATH', default: '/run/handfast/control.sock', help: 'unix socket for the agent of this machine' },
  'operator-socket': {
    kind: 'text',
    value: 'PATH',
    default: '/run/handfast/control-operator.sock',
    help: 'unix socket for operators, root alone',
  },
  ...listenFlags,
  ...nodeFlags,
  state: {
    kind: 'text',
    value: 'DIR',
    default: '/var/lib/handfast/control',
    help: "the mesh's ledger and the states of rollouts; with --listen control's own key too (0600)",
  },
  ...logFlags,
} as const;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast control',
    summary: 'Resolves registry and policy, and serves them to agents.',
  });
  const { log, close } = openLog({ role: 'control', level: config['log-level'] });
  const now = Date.now;
  const trustDomain = parseTrustDomain(config['trust-domain']);
  try {
    const node = { ...nodeOptions(config), trustDomain, stateDir: config.state, log, now };
    const control = await startControl({
      configDir: config.config,
      socket: config.socket,
      operatorSocket: config['operator-socket'],
      trustDomain,
      stateDir: config.state,
      ...(config.listen === undefined ? {} : { listen: { ...parseListen(config.listen), node } }),
      log,
      now,
    });
    await aborted(signal);
    await control.stop();
    return 0;
  } finally {
    close();
  }
}
