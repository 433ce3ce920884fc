// The chart as Helm renders and installs it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { parseAllDocuments } from 'yaml';
import { isJsonObject } from '../../src/spiffe/strict-json.ts';

export const CHART = fileURLToPath(new URL('../../deploy/chart', import.meta.url));
export const SYSTEM = 'handfast-system';
const HELM = process.env.HANDFAST_HELM ?? '';

export type Json = Readonly<Record<string, unknown>>;

export interface HelmResult {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export async function helm(args: readonly string[], { home }: { home: string }): Promise<HelmResult> {
  if (HELM === '') throw new Error('run this suite with `make test-kube`');
  const env = { PATH: process.env.PATH, HOME: home, KUBECONFIG: `${home}/kubeconfig` };
  const child = spawn(HELM, args, { stdio: ['ignore', 'pipe', 'pipe'], env });
  const out: string[] = [];
  const err: string[] = [];
  child.stdout.on('data', (chunk) => out.push(String(chunk)));
  child.stderr.on('data', (chunk) => err.push(String(chunk)));
  const [code] = await once(child, 'close');
  return { code, stdout: out.join(''), stderr: err.join('') };
}

/** The manifests. Throws with Helm's words. */
export async function render(values: readonly string[], of: { home: string }): Promise<string> {
  const { code, stdout, stderr } = await helm(['template', 'handfast', CHART, `--namespace=${SYSTEM}`, ...sets(values)], of);
  if (code !== 0) throw new Error(`helm template: ${stderr}`);
  return stdout;
}

export function sets(values: readonly string[]): string[] {
  return values.flatMap((value) => [value.includes('=[') || value.includes('={') ? '--set-json' : '--set', value]);
}

export function documentsOf(yaml: string): Json[] {
  return parseAllDocuments(yaml)
    .map((document): unknown => document.toJS())
    .filter(isJsonObject);
}

/** Throws where there is none. */
export function find(objects: readonly Json[], kind: string, name: string): Json {
  const found = objects.find((object) => object.kind === kind && at(object, 'metadata', 'name') === name);
  if (found === undefined) throw new Error(`there is no ${kind} ${name}`);
  return found;
}

/** What stands at a path of members; undefined where it ends before. */
export function at(value: unknown, ...path: readonly (string | number)[]): unknown {
  let here = value;
  for (const step of path) {
    if (Array.isArray(here) && typeof step === 'number') here = here[step];
    else if (isJsonObject(here)) here = here[String(step)];
    else return undefined;
  }
  return here;
}
