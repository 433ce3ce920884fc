#!/usr/bin/env node
// argv to a role; signals to an AbortSignal; the only process.exit.

import { HandfastError, messageOf } from './errors.ts';
import { HelpRequested } from './flags.ts';

interface Role {
  run(argv: readonly string[], signal: AbortSignal): Promise<number>;
}

const roles: Readonly<Record<string, { summary: string; load: () => Promise<Role> }>> = {
  proxy: { summary: 'the sidecar: mTLS in, mTLS out', load: () => import('./commands/proxy.ts') },
  agent: { summary: 'node agent: certificates (SDS) and discovery for sidecars', load: () => import('./commands/agent.ts') },
  ca: { summary: 'certificate authority', load: () => import('./commands/ca.ts') },
  control: { summary: 'registry and policy, from a directory of YAML, for agents', load: () => import('./commands/control.ts') },
  up: { summary: 'CA, control and agent in one process, from a directory of YAML', load: () => import('./commands/up.ts') },
  token: { summary: 'make a token for a local workload', load: () => import('./commands/token.ts') },
  'join-token': { summary: 'make a token that lets a node join, once', load: () => import('./commands/join-token.ts') },
  status: { summary: 'what the agent of this node serves, and who refused it', load: () => import('./commands/status.ts') },
  explain: { summary: 'why a pod is under the policies that it is under', load: () => import('./commands/explain.ts') },
  revoke: { summary: 'end certificates before their time; --dry-run says what would end', load: () => import('./commands/revoke.ts') },
  root: { summary: 'replace the root of trust, in stages', load: () => import('./commands/root.ts') },
  ledger: { summary: 'who spoke to whom, and how', load: () => import('./commands/ledger.ts') },
  'strict-check': { summary: 'who breaks if a namespace or workload becomes STRICT', load: () => import('./commands/strict-check.ts') },
  rollouts: { summary: 'how far each ScopeConfig with a rollout has come', load: () => import('./commands/rollouts.ts') },
  secrets: { summary: 'who may receive which secret, and who has which version', load: () => import('./commands/secrets.ts') },
  policy: { summary: 'what a proposed policy would have meant for what was observed', load: () => import('./commands/policy.ts') },
  injector: { summary: 'mutating admission webhook: puts the sidecar into pods', load: () => import('./commands/injector.ts') },
  inject: { summary: 'put the sidecar into the pods of manifests', load: () => import('./commands/inject.ts') },
  unmeshed: { summary: 'pods that run without the sidecar that they should have', load: () => import('./commands/unmeshed.ts') },
  iptables: { summary: 'apply, clean or print the redirection into the sidecar', load: () => import('./commands/iptables.ts') },
  wait: { summary: 'wait until the sidecar of this pod is ready', load: () => import('./commands/wait-ready.ts') },
};

const EXIT = { failed: 1, usage: 2 } as const;

async function main(argv: readonly string[]): Promise<number> {
  const [name = '--help', ...rest] = argv;
  if (name === '--help' || name === '-h') {
    process.stdout.write(
      `usage: handfast ROLE [flags]\n\n${Object.entries(roles)
        .map(([role, { summary }]) => `  ${role.padEnd(14)}${summary}\n`)
        .join('')}\nhandfast ROLE --help says more.\n`,
    );
    return 0;
  }
  const role = roles[name];
  if (role === undefined)
    throw new HandfastError('CONFIG_INVALID', `there is no role ${JSON.stringify(name)}; there are: ${Object.keys(roles).join(', ')}`);
  const { run } = await role.load();
  return run(rest, stopSignal());
}

/** Aborts on the first SIGTERM or SIGINT; a second one ends the process at once. */
function stopSignal(): AbortSignal {
  const controller = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      if (controller.signal.aborted) process.exit(EXIT.failed);
      controller.abort();
    });
  }
  return controller.signal;
}

main(process.argv.slice(2)).then(
  (code) => process.exit(code),
  (error: unknown) => {
    if (error instanceof HelpRequested) {
      process.stdout.write(error.message);
      process.exit(0);
    }
    process.stderr.write(
      `handfast: ${error instanceof HandfastError ? error.message : error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}\n`,
    );
    process.exit(error instanceof HandfastError && error.code === 'CONFIG_INVALID' ? EXIT.usage : EXIT.failed);
  },
);
