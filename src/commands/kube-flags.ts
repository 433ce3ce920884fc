// How a role reaches the Kubernetes API server: inside a cluster by what kubelet puts into every pod, elsewhere by flags.

import { HandfastError } from '../errors.ts';
import type { FlagValues } from '../flags.ts';
import { HttpsKubeApi } from '../kube/api.ts';

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount';

export const kubeFlags = {
  'kube-server': {
    kind: 'text',
    value: 'URL',
    optional: true,
    help: 'the Kubernetes API server, https://host:port (default: the one of the cluster that this pod is in)',
  },
  'kube-ca': { kind: 'text', value: 'FILE', default: `${SERVICE_ACCOUNT}/ca.crt`, help: "roots of the API server's certificate" },
  'kube-token': {
    kind: 'text',
    value: 'FILE',
    default: `${SERVICE_ACCOUNT}/token`,
    help: 'our bearer token for it, read again when it is renewed',
  },
} as const;

/** Throws CONFIG_INVALID where there is neither a flag nor a cluster. */
export function kubeApiOf(
  flags: FlagValues<typeof kubeFlags>,
  env: NodeJS.ProcessEnv,
  bounds: { readonly maxAnswerBytes?: number } = {},
): HttpsKubeApi {
  const server = flags['kube-server'] ?? inCluster(env);
  return new HttpsKubeApi({ server, caFile: flags['kube-ca'], tokenFile: flags['kube-token'], ...bounds });
}

function inCluster(env: NodeJS.ProcessEnv): string {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port = '443' } = env;
  if (host === undefined || host === '')
    throw new HandfastError('CONFIG_INVALID', 'this is no pod of a cluster (KUBERNETES_SERVICE_HOST is not set): give --kube-server');
  return `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
