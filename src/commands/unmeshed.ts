// handfast unmeshed: pods of a cluster that should have the sidecar, and run without it.

import { HandfastError } from '../errors.ts';
import { parseFlags } from '../flags.ts';
import { parseInjectorConfig } from '../injector/config.ts';
import type { UnmeshedPod } from '../injector/unmeshed.ts';
import { UNMESHED_BOUNDS, UnmeshedPods } from '../injector/unmeshed-pods.ts';
import { readConfig } from './injector.ts';
import { scriptArguments } from './iptables.ts';
import { kubeApiOf, kubeFlags } from './kube-flags.ts';
import { operatorFlags, print, table } from './operator-flags.ts';

const flags = {
  config: {
    kind: 'text',
    value: 'FILE',
    default: '/etc/handfast/config.yaml',
    help: "the injector's settings, by whose rules pods are judged",
  },
  namespace: { kind: 'text', value: 'NAME', optional: true, short: 'n', help: 'this one alone' },
  timeout: { kind: 'duration', default: '60s', min: '1s', max: '10m', help: 'for the API server to tell of all pods' },
  output: operatorFlags.output,
  ...kubeFlags,
} as const;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const options = parseFlags(argv, flags, {
    command: 'handfast unmeshed',
    summary: 'Pods that should have the sidecar and run without it, and what to do. Exits with 1 if there are any.',
  });
  const config = parseInjectorConfig({ text: await readConfig(options.config), name: options.config });
  let reason = '';
  const log = {
    warn: (said: { reason?: unknown }) => {
      if (said.reason !== undefined) reason = `: ${String(said.reason)}`;
    },
  };
  const api = kubeApiOf(options, process.env, UNMESHED_BOUNDS);
  const ending = new AbortController();
  try {
    // Its right to ask is a matter of the first answer; the reflectors would try again for ever.
    for (const path of ['/api/v1/pods?limit=1', '/api/v1/namespaces?limit=1']) await api.request({ method: 'GET', path, signal });
    const unmeshed = new UnmeshedPods({ api, config, captureArguments: scriptArguments, log });
    const running = unmeshed.run(ending.signal);
    const found = await within(unmeshed.first, { timeoutMs: options.timeout, signal, reason: () => reason });
    ending.abort();
    await running;
    const wanted = found.filter(({ namespace }) => options.namespace === undefined || namespace === options.namespace);
    print(options.output, { unmeshed: wanted }, () => describe(wanted));
    return wanted.length === 0 ? 0 : 1;
  } finally {
    ending.abort();
    api.close();
  }
}

async function within<T>(
  first: Promise<T>,
  { timeoutMs, signal, reason }: { timeoutMs: number; signal: AbortSignal; reason: () => string },
): Promise<T> {
  const late = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  return new Promise((resolve, reject) => {
    const give = () =>
      reject(new HandfastError('UNAVAILABLE', `the API server has not told of all pods within ${timeoutMs} ms (--timeout)${reason()}`));
    late.addEventListener('abort', give, { once: true });
    first.then(resolve, reject).finally(() => late.removeEventListener('abort', give));
  });
}

function describe(found: readonly UnmeshedPod[]): string {
  if (found.length === 0) return 'every pod that should have a sidecar has one\n';
  const count = found.length === 1 ? '1 pod runs' : `${found.length} pods run`;
  const rows = found.map(({ namespace, name, owner, why }) => [namespace, name, owner === '' ? '-' : owner, why]);
  // What helps is often one thing for many.
  const ways = [...new Set(found.map(({ wayOut }) => wayOut))].map((way) => `  ${way}\n`);
  return `${count} unmeshed\n${table(['NAMESPACE', 'POD', 'OWNER', 'WHY'], rows)}what to do:\n${ways.join('')}`;
}
