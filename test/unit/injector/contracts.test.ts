// What the injector writes into pods is what the roles there take: the sidecar's flags and probers, the init container's, the wait.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';
import { scriptArguments } from '../../../src/commands/iptables.ts';
import { appProbesOf } from '../../../src/commands/status-port.ts';
import { parseFlags } from '../../../src/flags.ts';
import { SIDECAR_PORTS } from '../../../src/injector/own-parts.ts';
import { parseAppProbers } from '../../../src/probes/app-probers.ts';
import { parseProxyConfig, proxyFlags } from '../../../src/proxy/config.ts';
import { injectIn } from './injecting.ts';

const folder = new URL('goldens/', import.meta.url);
const container = z.looseObject({
  name: z.string(),
  args: z.array(z.string()).default([]),
  env: z.array(z.looseObject({ name: z.string(), value: z.string().optional() })).default([]),
});

/** As kubelet expands it where no variable is named. */
const expanded = (text: string) => text.replaceAll('$$', '$');

/** Every container called so, of all goldens. */
function containers(name: string) {
  const found: z.infer<typeof container>[] = [];
  for (const file of readdirSync(folder).filter((file) => file.endsWith('.out.yaml'))) {
    for (const document of parseAllDocuments(readFileSync(new URL(file, folder), 'utf8'))) {
      JSON.stringify(document.toJS(), (_, value: unknown) => {
        const read = container.safeParse(value);
        if (read.success && read.data.name === name) found.push(read.data);
        return value;
      });
    }
  }
  assert.ok(found.length >= 25);
  return found;
}

describe('what is written into pods', () => {
  test('is-a-command-line-that-the-sidecar-takes', () => {
    const proxies = containers('handfast-proxy').filter(({ args }) => args[0] === 'proxy');
    assert.ok(proxies.length >= 20);
    for (const { args } of proxies) {
      const flags = parseFlags(
        args.slice(1).map(expanded),
        proxyFlags,
        { command: '', summary: '' },
        { POD_NAME: 'a', POD_NAMESPACE: 'b' },
      );
      assert.equal(flags.agent, 'unix:/run/handfast/agent.sock');
    }
  });

  test('is-a-command-line-that-the-init-container-takes', () => {
    for (const { args } of containers('handfast-init')) {
      assert.equal(args[0], 'iptables');
      assert.equal(scriptArguments(args.slice(1).map(expanded))[0], 'apply');
    }
  });

  test('are-probers-that-the-sidecar-takes-of-whatever-port', () => {
    const { inject } = injectIn();
    const config = parseProxyConfig(['--agent=unix:/a', '--pod-name=a', '--pod-namespace=b']);
    const kinds = (port: number) => [{ httpGet: { port } }, { tcpSocket: { port } }, { grpc: { port } }];
    const counted = { injected: 0, refused: 0, skipped: 0 };
    for (const port of [1, 14_999, 15_000, 15_001, 15_002, 15_006, 15_008, 15_009, 15_019, 15_020, 15_021, 15_022, 65_535]) {
      for (const readinessProbe of kinds(port)) {
        const result = inject({ spec: { containers: [{ name: 'app', readinessProbe }] } });
        counted[result.kind]++;
        if (result.kind !== 'injected') continue;
        const sidecar = result.pod.spec.initContainers?.find(({ name }) => name === 'handfast-proxy');
        const value = sidecar?.env?.find(({ name }) => name === 'HANDFAST_APP_PROBERS')?.value;
        // Those of the sidecar's own two ports for kubelet stay as they are.
        assert.equal(value == null, port === 15_020 || port === 15_021);
        appProbesOf({ ...config, 'pod-ip': '10.0.0.1', 'app-probers': expanded(value ?? '{}') });
      }
    }
    assert.deepEqual(counted, { injected: 27, refused: 12, skipped: 0 });
  });

  test('are-probers-that-the-sidecar-takes', () => {
    const texts = containers('handfast-proxy').flatMap(({ env }) => env.filter(({ name }) => name === 'HANDFAST_APP_PROBERS'));
    assert.ok(texts.length >= 5);
    for (const { value = '' } of texts) assert.ok(parseAppProbers(expanded(value), new Set(SIDECAR_PORTS)).size > 0);
  });
});
