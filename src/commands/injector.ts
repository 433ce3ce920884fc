// handfast injector: the mutating admission webhook.

import { readFile } from 'node:fs/promises';
import { HandfastError, messageOf } from '../errors.ts';
import { parseFlags } from '../flags.ts';
import { parseInjectorConfig } from '../injector/config.ts';
import { KubeNamespaceLabels } from '../injector/namespace-labels.ts';
import { answerReview } from '../injector/review.ts';
import { RootsFile } from '../injector/roots-file.ts';
import { ServingCertificate } from '../injector/serving-certificate.ts';
import { ServingSecret } from '../injector/serving-secret.ts';
import { UNMESHED_BOUNDS, UnmeshedPods } from '../injector/unmeshed-pods.ts';
import { WebhookServer } from '../injector/webhook-server.ts';
import { openLog } from '../observe/log.ts';
import { metricsText } from '../observe/metrics-text.ts';
import { aborted } from './aborted.ts';
import { scriptArguments } from './iptables.ts';
import { kubeApiOf, kubeFlags } from './kube-flags.ts';
import { logFlags } from './shared-flags.ts';

const flags = {
  config: { kind: 'text', value: 'FILE', help: 'YAML or JSON: image, identity and the rest (docs/injection.md)' },
  port: { kind: 'port', default: 9443, help: 'HTTPS: POST /inject for the API server, GET /healthz and /metrics' },
  namespace: {
    kind: 'text',
    value: 'NAME',
    default: 'handfast-system',
    env: 'POD_NAMESPACE',
    help: "the injector's own namespace, of its Service and Secret",
  },
  service: { kind: 'text', value: 'NAME', default: 'handfast-injector', help: 'the Service that the API server calls us by' },
  secret: {
    kind: 'text',
    value: 'NAME',
    default: 'handfast-injector-tls',
    help: 'the Secret with our certificate; made, shared by replicas, renewed',
  },
  'webhook-configuration': {
    kind: 'text',
    value: 'NAME',
    default: 'handfast-injector',
    help: 'the MutatingWebhookConfiguration whose CA bundle we keep',
  },
  ...kubeFlags,
  ...logFlags,
} as const;

const usage = {
  command: 'handfast injector',
  summary: 'The mutating admission webhook: puts the sidecar into pods as they are created. `handfast inject` does the same to files.',
};
/** For reviews under way when we are told to end. */
const DRAIN_MS = 10_000;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const options = parseFlags(argv, flags, usage, process.env);
  const { namespace, service } = options;
  for (const name of ['namespace', 'service', 'secret', 'webhook-configuration'] as const) checkName(name, options[name]);
  const config = parseInjectorConfig({ text: await readConfig(options.config), name: options.config });
  const { log, close } = openLog({ role: 'injector', level: options['log-level'] });
  const api = kubeApiOf(options, process.env);
  const watching = kubeApiOf(options, process.env, UNMESHED_BOUNDS);
  try {
    const names = [`${service}.${namespace}.svc`, `${service}.${namespace}.svc.cluster.local`];
    const now = Date.now;
    const secret = new ServingSecret({ api, namespace, name: options.secret, dnsNames: names, log, now });
    const certificate = new ServingCertificate({ api, secret, webhookConfiguration: options['webhook-configuration'], log, now });
    const serving = await certificate.first(signal).catch((error: unknown) => {
      if (signal.aborted) return undefined;
      throw error;
    });
    if (serving === undefined) return 0;
    const namespaces = new KubeNamespaceLabels({ api, now: () => performance.now() });
    const roots = config.inPod === undefined ? undefined : new RootsFile({ path: config.inPod.rootsFile, log });
    await roots?.start(signal);
    const unmeshed = new UnmeshedPods({ api: watching, config, captureArguments: scriptArguments, log });
    const server = await WebhookServer.start({
      port: options.port,
      serving,
      answer: (body) => answerReview(body, { config, roots: () => roots?.current, captureArguments: scriptArguments, namespaces }),
      metrics: () => metricsText(unmeshed.families()),
      log,
    });
    log.info({ port: server.port, service: names[0], image: config.image }, 'injector listening');
    const renewal = certificate.run({ signal, show: (material) => server.replace(material) });
    const reconciling = unmeshed.run(signal);
    await aborted(signal);
    await server.stop(DRAIN_MS);
    await Promise.all([renewal, reconciling]);
    log.info('stopped');
    return 0;
  } finally {
    watching.close();
    api.close();
    close();
  }
}

export async function readConfig(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `cannot read ${path}: ${messageOf(cause)}`, { cause });
  }
}

/** They become parts of paths and of DNS names. */
function checkName(flag: string, name: string): void {
  if (/^(?=.{1,253}$)[a-z0-9]([-a-z0-9.]*[a-z0-9])?$/.test(name)) return;
  throw new HandfastError('CONFIG_INVALID', `--${flag} ${JSON.stringify(name)} is not accepted: a name of Kubernetes, in lower case`);
}
