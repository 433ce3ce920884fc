// The CA's roots in a ConfigMap, from the first of them to the last rotation: what agents and control of a cluster are given to begin with.

import { HandfastError } from '../errors.ts';
import type { FlagValues } from '../flags.ts';
import { KeptConfigMap } from '../kube/kept-config-map.ts';
import type { Log } from '../observe/log.ts';
import { kubeApiOf, type kubeFlags } from './kube-flags.ts';

const KEY = 'root.pem';

export interface PublishedBundle {
  readonly replace: (bundlePem: string) => void;
  stop(): Promise<void>;
}

/** Undefined where nobody asks for it. Throws CONFIG_INVALID. */
export function publishedBundle(
  config: FlagValues<typeof kubeFlags> & { readonly 'publish-bundle': string | undefined },
  { env, log }: { env: NodeJS.ProcessEnv; log: Log },
): PublishedBundle | undefined {
  const place = config['publish-bundle'];
  if (place === undefined) return undefined;
  const [, namespace, name] = /^([a-z0-9][-a-z0-9]{0,62})\/([a-z0-9][-a-z0-9.]{0,252})$/.exec(place) ?? [];
  if (namespace === undefined || name === undefined)
    throw new HandfastError('CONFIG_INVALID', `--publish-bundle ${JSON.stringify(place)} is not accepted: NAMESPACE/NAME of a ConfigMap`);
  const api = kubeApiOf(config, env);
  const ending = new AbortController();
  let kept: KeptConfigMap | undefined;
  let running: Promise<void> = Promise.resolve();
  return {
    replace: (value) => {
      if (kept !== undefined) return kept.replace(value);
      kept = new KeptConfigMap({
        api,
        namespace,
        name,
        key: KEY,
        value,
        onFailed: (reason) => log.error({ configMap: place, reason }, 'trust bundle not published; it is tried again'),
        onWritten: () => log.info({ configMap: place }, 'trust bundle published'),
      });
      running = kept.run(ending.signal);
    },
    stop: async () => {
      ending.abort();
      await running;
      api.close();
    },
  };
}
