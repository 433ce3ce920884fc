// A cluster with the chart installed in it, as its tests ask it.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { CHART, documentsOf, helm, type Json, render, SYSTEM, sets } from './chart.ts';
import { KubeCluster } from './kube-cluster.ts';

/** A minute at most: what controllers and admission do takes a moment. */
export async function until(what: string, holds: () => Promise<boolean>): Promise<void> {
  const started = performance.now();
  while (!(await holds())) {
    assert.ok(performance.now() - started < 60_000, `${what}: not within 60 s`);
    await delay(100);
  }
}

/** With one container `app`, and what the test adds. */
export function pod(spec: object, namespace: string, metadata: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'tried', namespace, ...metadata },
    spec: { containers: [{ name: 'app', image: 'app:1' }], ...spec },
  };
}

export class InstalledChart implements AsyncDisposable {
  readonly cluster: KubeCluster;
  /** As rendered. */
  readonly objects: readonly Json[];

  private constructor(cluster: KubeCluster, objects: readonly Json[]) {
    this.cluster = cluster;
    this.objects = objects;
  }

  static async start(values: readonly string[] = []): Promise<InstalledChart> {
    const cluster = await KubeCluster.start();
    try {
      await cluster.apply(await readFile(new URL('../../deploy/namespace.yaml', import.meta.url), 'utf8'));
      const of = { home: cluster.dir };
      const { code, stderr } = await helm(['install', 'handfast', CHART, `--namespace=${SYSTEM}`, ...sets(values)], of);
      assert.equal(code, 0, stderr);
      return new InstalledChart(cluster, documentsOf(await render(values, of)));
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    }
  }

  async namespace(name: string, labels: Readonly<Record<string, string>> = {}): Promise<void> {
    await this.cluster.apply(JSON.stringify({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } }));
    const account = ['get', 'serviceaccount', 'default', '-n', name];
    await until(`the account of ${name}`, async () => (await this.cluster.kubectl(account)).code === 0);
  }

  /** What the API server would say of it; empty if it would take it. */
  async refusal(manifest: string | object, as?: string): Promise<string> {
    const input = typeof manifest === 'string' ? manifest : JSON.stringify(manifest);
    const { code, stderr } = await this.cluster.kubectl(
      ['create', '--dry-run=server', '-f', '-'],
      as === undefined ? { input } : { input, as },
    );
    return code === 0 ? '' : stderr;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cluster[Symbol.asyncDispose]();
  }
}
