// handfast agent: the node agent alone.

import { startAgent } from '../agent/agent.ts';
import { parseFlags } from '../flags.ts';
import { openLog } from '../observe/log.ts';
import { aborted } from './aborted.ts';
import { logFlags, rotationFlags } from './shared-flags.ts';

const flags = {
  socket: { kind: 'text', value: 'PATH', default: '/run/handfast/agent.sock', help: 'unix socket for workloads' },
  ca: { kind: 'text', value: 'ADDRESS', default: 'unix:/run/handfast/ca.sock', help: 'gRPC address of the CA' },
  control: { kind: 'text', value: 'ADDRESS', default: 'unix:/run/handfast/control.sock', help: 'gRPC address of control' },
  ...rotationFlags,
  ...logFlags,
} as const;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast agent',
    summary: "Serves certificates (SDS) and the mesh's registry and policy to the sidecars of this node.",
  });
  const { log, close } = openLog({ role: 'agent', level: config['log-level'] });
  try {
    const agent = await startAgent({ ...config, rotateEveryMs: config['rotate-every'], log, now: Date.now });
    await aborted(signal);
    await agent.stop();
    return 0;
  } finally {
    close();
  }
}
