// handfast inject: the injector on manifests, without a cluster.

import { readFile } from 'node:fs/promises';
import { text as readAll } from 'node:stream/consumers';
import { HandfastError, messageOf } from '../errors.ts';
import { parseFlags } from '../flags.ts';
import { parseInjectorConfig } from '../injector/config.ts';
import { injectPod } from '../injector/inject-pod.ts';
import { injectManifest } from '../injector/manifest.ts';
import { readRoots } from '../injector/roots-file.ts';
import { scriptArguments } from './iptables.ts';

const flags = {
  file: { kind: 'text', short: 'f', value: 'FILE|-', help: 'manifests: YAML or JSON, several documents; - reads standard input' },
  config: { kind: 'text', value: 'FILE', optional: true, help: "the injector's configuration (docs/injection.md)" },
  image: { kind: 'text', value: 'IMAGE', optional: true, help: "the sidecar's image; needed where --config names none" },
  namespace: { kind: 'text', value: 'NAME', default: 'default', help: 'the namespace of objects that name none' },
  'namespace-labels': {
    kind: 'text',
    value: 'K=V,…',
    optional: true,
    help: 'labels of that namespace; beside them it counts as istio-injection=enabled',
  },
} as const;

const usage = {
  command: 'handfast inject',
  summary:
    'Puts the sidecar into the pods of manifests: Pod, Deployment, StatefulSet, DaemonSet, ReplicaSet, ReplicationController, Job, CronJob, PodTemplate, Lists of them.\n' +
    'All else comes out byte for byte. Pods that are skipped, and objects of other kinds with containers, are named on standard error; if one is refused, nothing comes out.',
};

export async function run(argv: readonly string[]): Promise<number> {
  const options = parseFlags(argv, flags, usage);
  const config = parseInjectorConfig({
    text: options.config === undefined ? '{}\n' : await readText(options.config),
    name: options.config ?? '--image',
    image: options.image,
  });
  const roots = config.inPod === undefined ? undefined : await rootsOf(config.inPod.rootsFile);
  const namespaceLabels = { 'istio-injection': 'enabled', ...parseLabels(options['namespace-labels']) };
  const name = options.file === '-' ? 'standard input' : options.file;
  const { text, skipped, refused, overlooked } = injectManifest(
    { text: await readText(options.file), name },
    {
      namespace: options.namespace,
      inject: (pod, namespace) => injectPod({ pod, namespace, namespaceLabels, config, roots, captureArguments: scriptArguments }),
    },
  );
  for (const line of skipped) process.stderr.write(`skipped: ${line}\n`);
  for (const line of overlooked) process.stderr.write(`not injected: ${line}\n`);
  for (const line of refused) process.stderr.write(`refused: ${line}\n`);
  if (refused.length > 0) return 1;
  await new Promise<void>((resolve) => {
    process.stdout.write(text, () => resolve());
  });
  return 0;
}

async function readText(path: string): Promise<string> {
  try {
    return path === '-' ? await readAll(process.stdin) : await readFile(path, 'utf8');
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `cannot read ${path}: ${messageOf(cause)}`, { cause });
  }
}

/** Throws CONFIG_INVALID. */
function parseLabels(text: string | undefined): Readonly<Record<string, string>> {
  if (text === undefined) return {};
  return Object.fromEntries(
    text.split(',').map((pair) => {
      const [, label, value] = /^([A-Za-z0-9][-A-Za-z0-9_./]*)=([-A-Za-z0-9_.]*)$/.exec(pair.trim()) ?? [];
      if (label !== undefined && value !== undefined) return [label, value];
      throw new HandfastError(
        'CONFIG_INVALID',
        `--namespace-labels ${JSON.stringify(pair)} is not accepted: LABEL=VALUE, separated by commas`,
      );
    }),
  );
}

async function rootsOf(path: string): Promise<string> {
  try {
    return readRoots(await readText(path));
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `inPod.rootsFile ${path}: ${messageOf(cause)}`, { cause });
  }
}
