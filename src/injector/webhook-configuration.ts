// The MutatingWebhookConfiguration, as far as it is ours to write: the authorities that API servers verify the webhook with.

import { HandfastError } from '../errors.ts';
import type { KubeApi } from '../kube/api.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';

const PATH = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
const ATTEMPTS = 5;

/** Into every webhook of it, where it differs. `absent`: there is no such configuration. Throws what the API server says, and UNAVAILABLE. */
export async function putCaBundle(of: { api: KubeApi; name: string; bundle: string }): Promise<'unchanged' | 'changed' | 'absent'> {
  const caBundle = Buffer.from(of.bundle).toString('base64');
  const path = `${PATH}/${of.name}`;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    try {
      const configuration = await of.api.request({ method: 'GET', path });
      const webhooks = (Array.isArray(configuration.webhooks) ? configuration.webhooks : []).map((webhook: unknown) => webhook);
      const wanted = webhooks.map((webhook) => withBundle(webhook, caBundle));
      if (wanted.every((webhook, index) => webhook === webhooks[index])) return 'unchanged';
      await of.api.request({ method: 'PUT', path, body: { ...configuration, webhooks: wanted } });
      return 'changed';
    } catch (error) {
      if (!(error instanceof HandfastError)) throw error;
      if (error.code === 'KUBE_NOT_FOUND') return 'absent';
      if (error.code !== 'KUBE_CONFLICT') throw error;
    }
  }
  throw new HandfastError('UNAVAILABLE', `MutatingWebhookConfiguration ${of.name} changes faster than it can be written`);
}

/** The same object if it has the bundle. */
function withBundle(webhook: unknown, caBundle: string): unknown {
  if (!isJsonObject(webhook)) return webhook;
  const clientConfig = isJsonObject(webhook.clientConfig) ? webhook.clientConfig : {};
  return clientConfig.caBundle === caBundle ? webhook : { ...webhook, clientConfig: { ...clientConfig, caBundle } };
}
