// The injector as tests call it: a configuration from a few settings, and the role's own check of what is captured.

import { z } from 'zod';
import { scriptArguments } from '../../../src/commands/iptables.ts';
import { type InjectorConfig, parseInjectorConfig } from '../../../src/injector/config.ts';
import { type Injection, injectPod } from '../../../src/injector/inject-pod.ts';

/** No real ones: nothing is trusted by them here. */
export const ROOTS = '-----BEGIN CERTIFICATE-----\nROOTS\n-----END CERTIFICATE-----\n';
export const IMAGE = 'registry.example/handfast:1.2.3';

const schema = z.strictObject({
  config: z.record(z.string(), z.unknown()).default({}),
  namespace: z.string().default('shop'),
  namespaceLabels: z.record(z.string(), z.string()).default({ 'istio-injection': 'enabled' }),
});
export type Circumstances = Readonly<Record<keyof z.infer<typeof schema>, unknown>>;

export function configOf(settings: Readonly<Record<string, unknown>> = {}): InjectorConfig {
  return parseInjectorConfig({ text: JSON.stringify({ image: IMAGE, ...settings }), name: 'injector.json' });
}

/** In an enabled namespace unless told otherwise. */
export function injectIn(of: Partial<Circumstances> = {}): {
  namespace: string;
  inject: (pod: unknown, namespace?: string) => Injection;
} {
  const { config: settings, namespace: preset, namespaceLabels } = schema.parse(of);
  const config = configOf(settings);
  return {
    namespace: preset,
    inject: (pod, namespace = preset) =>
      injectPod({ pod, namespace, namespaceLabels, config, roots: ROOTS, captureArguments: scriptArguments }),
  };
}
