// Who may import whom (ARCHITECTURE.md has the same table), and no cycles. Exits 1 with every violation named.

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const ANYONE = ['errors.ts', 'snapshot.ts', 'flags.ts', 'rate-limit.ts', 'fair-share.ts', 'turns.ts', 'backoff.ts'];

/** Folder to the folders it may import. `wire` is generated protobuf and gRPC plumbing, for those who speak it. */
export const rules: Readonly<Record<string, readonly string[]>> = {
  spiffe: [],
  policy: ['spiffe'],
  net: [],
  wire: ['spiffe', 'net', 'tls'],
  store: ['spiffe'],
  observe: ['spiffe', 'policy'],
  tls: ['spiffe', 'policy', 'net'],
  hbone: ['net', 'tls', 'policy', 'spiffe'],
  http: ['net', 'tls', 'policy', 'spiffe'],
  discovery: ['spiffe', 'policy', 'wire'],
  node: ['spiffe', 'discovery', 'observe', 'wire', 'ca/client.ts', 'store'],
  proxy: ['spiffe', 'policy', 'net', 'observe', 'tls', 'hbone', 'http', 'discovery'],
  workers: ['spiffe', 'policy', 'net', 'observe', 'discovery', 'proxy'],
  probes: ['spiffe', 'policy', 'net', 'observe'],
  'identity-api': ['spiffe', 'policy', 'observe', 'discovery', 'wire', 'ca/client.ts', 'agent/jwt-svid-cache.ts'],
  agent: ['spiffe', 'policy', 'net', 'node', 'discovery', 'observe', 'wire', 'ca/client.ts', 'yaml', 'identity-api'],
  yaml: [],
  control: ['spiffe', 'policy', 'yaml', 'tls', 'node', 'discovery', 'observe', 'wire', 'store', 'kube'],
  ca: ['spiffe', 'store', 'tls', 'discovery', 'observe', 'wire'],
  kube: ['spiffe', 'policy'],
  injector: ['spiffe', 'yaml', 'observe', 'kube', 'ca/certificate.ts', 'ca/signer.ts', 'policy/forward-client-cert.ts'],
  commands: [
    'spiffe',
    'policy',
    'net',
    'observe',
    'tls',
    'hbone',
    'http',
    'discovery',
    'node',
    'proxy',
    'workers',
    'probes',
    'identity-api',
    'agent',
    'control',
    'ca',
    'kube',
    'injector',
    'store',
    'wire',
  ],
};

/** Packages that only some may load: gRPC stays out of the data path, YAML and schemas out of the sidecar. */
const packages: Readonly<Record<string, readonly string[]>> = {
  '@grpc/grpc-js': ['wire', 'discovery', 'agent', 'control', 'ca'],
  'node-forge': [],
  'node-forge/lib/asn1.js': ['spiffe'],
  koffi: ['net'],
  'http-proxy': ['http'],
  yaml: ['yaml', 'control', 'agent', 'injector'],
  zod: ['policy', 'yaml', 'control', 'agent', 'injector', 'commands'],
};

/** What a sidecar beside an agent loads begins here: what is imported by `import()` is loaded by those who need it. */
const SIDECAR = 'commands/proxy.ts';
/** Megabytes in each of a thousand sidecars, which read no YAML. */
const NOT_IN_SIDECAR = ['yaml', 'zod', 'agent/agent.ts'];

/** Every violation in a tree of sources, path (relative to src) to text. An empty list is a pass. */
export function violations(sources: ReadonlyMap<string, string>): string[] {
  const found: string[] = [];
  const graph = new Map<string, string[]>();
  for (const [file, text] of sources) {
    const targets: string[] = [];
    for (const specifier of importsOf(text)) {
      if (specifier.startsWith('.')) {
        const target = join(dirname(file), specifier);
        targets.push(target);
        if (!mayImport(file, target)) found.push(`${file} may not import ${target}`);
      } else {
        // A path inside a package is the package's, unless it has a row of its own.
        const allowed = packages[specifier] ?? packages[packageOf(specifier)];
        if (allowed !== undefined && !allowed.includes(folderOf(file))) found.push(`${file} may not import the package ${specifier}`);
      }
    }
    graph.set(file, targets);
  }
  return [...found, ...cycles(graph), ...loadedBySidecar(sources)];
}

function loadedBySidecar(sources: ReadonlyMap<string, string>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (done.has(file)) return;
    done.add(file);
    for (const [, , specifier = ''] of (sources.get(file) ?? '').matchAll(
      /^(?:import|export)(?! type)\b[^;]*?\bfrom\s+(['"])([^'"]+)\1/gm,
    )) {
      const target = specifier.startsWith('.') ? join(dirname(file), specifier) : packageOf(specifier);
      if (NOT_IN_SIDECAR.includes(target)) found.push(`the sidecar loads ${target}: ${[...path, file].join(' -> ')}`);
      else if (specifier.startsWith('.')) visit(target, [...path, file]);
    }
  };
  visit(SIDECAR, []);
  return found;
}

function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/');
}

function mayImport(file: string, target: string): boolean {
  const [from, to] = [folderOf(file), folderOf(target)];
  if (from === to) return true;
  if (ANYONE.includes(target)) return true;
  if (from === '') return file === 'main.ts' && to === 'commands';
  return (rules[from] ?? []).some((allowed) => allowed === to || allowed === target);
}

function folderOf(file: string): string {
  return file.includes('/') ? (file.split('/')[0] ?? '') : '';
}

function importsOf(text: string): string[] {
  return [...text.matchAll(/(?:\bfrom\s+|\bimport\s*\(\s*|^import\s+)(['"])([^'"]+)\1/gm)].map((match) => match[2] ?? '');
}

function cycles(graph: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    const at = path.indexOf(file);
    if (at >= 0) {
      found.push(`cycle: ${[...path.slice(at), file].join(' -> ')}`);
      return;
    }
    if (done.has(file)) return;
    for (const target of graph.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of graph.keys()) visit(file, []);
  return found;
}

/** The sources of this checkout; generated code and mere declarations are left out. */
export function readSources(src: string): Map<string, string> {
  const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter(
    (file) => file.endsWith('.ts') && !file.endsWith('.d.ts') && !file.startsWith('wire/gen'),
  );
  return new Map(files.map((file) => [file, readFileSync(join(src, file), 'utf8')]));
}

if (process.argv[1] !== undefined && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const src = fileURLToPath(new URL('../src', import.meta.url));
  const found = violations(readSources(src));
  for (const violation of found) process.stderr.write(`${relative(process.cwd(), src)}: ${violation}\n`);
  process.exitCode = found.length === 0 ? 0 : 1;
}
