// handfast rollouts: how far each ScopeConfig with a rollout has come, and why it stands where it does.

import { z } from 'zod';
import { parseFlags } from '../flags.ts';
import { ask, print, table } from './operator-flags.ts';
import { questionFlags, time } from './question-flags.ts';

const schema = z.object({
  rollouts: z.array(
    z.object({
      key: z.string(),
      phase: z.string(),
      step: z.number(),
      stepSince: z.number(),
      pods: z.array(z.string()),
      reason: z.string(),
    }),
  ),
});

export async function run(argv: readonly string[]): Promise<number> {
  const config = parseFlags(argv, questionFlags, {
    command: 'handfast rollouts',
    summary:
      'How far each ScopeConfig with a rollout has come. One that was rolled back stays so until its object is changed. Run beside control, as root.',
  });
  const answer = await ask({ runDir: config['run-dir'], role: 'control' }, { method: 'GET', path: '/rollouts' }, schema);
  print(config.output, answer, () => describe(answer));
  return 0;
}

function describe({ rollouts }: z.infer<typeof schema>): string {
  if (rollouts.length === 0) return 'no ScopeConfig has a rollout\n';
  return table(
    ['SCOPECONFIG', 'PHASE', 'STEP', 'SINCE', 'PODS', 'WHY'],
    rollouts.map(({ key, phase, step, stepSince, pods, reason }) => [
      key,
      phase,
      String(step + 1),
      time(stepSince),
      String(pods.length),
      reason,
    ]),
  );
}
