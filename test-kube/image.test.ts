// The image without Docker: what its Dockerfile copies is laid out in a folder that uid 1337 can read, and started there as the Dockerfile says.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmod, cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { type Pod, PodNetwork } from '../test/support/namespaces.ts';

const run = promisify(execFile);
const ROOT = fileURLToPath(new URL('..', import.meta.url));
let dockerfile: readonly string[];
let dir: string;
let network: PodNetwork;
let pod: Pod;

before(async () => {
  dockerfile = (await readFile(join(ROOT, 'Dockerfile'), 'utf8')).replaceAll('\\\n', ' ').split('\n');
  dir = await mkdtemp(join(tmpdir(), 'handfast-image-'));
  await chmod(dir, 0o755);
  const build = join(dir, 'build');
  await mkdir(build);
  for (const stage of stages()) {
    for (const { sources, target, isFromBuild } of copiesOf(stage.lines)) {
      const into = stage.isLast ? join(dir, 'app') : build;
      for (const source of sources) {
        const from = isFromBuild ? join(build, source.replace(/^\/build\//, '')) : join(ROOT, source);
        const name = target.endsWith('/') ? join(target, source.split('/').at(-1) ?? '') : target;
        await cp(from, join(into, name), { recursive: true, verbatimSymlinks: true });
      }
    }
    if (stage.isLast) continue;
    // The build stage's RUN lines, with the tools of this checkout.
    await run('npm', ['ci', '--loglevel=error', '--no-progress', '--omit=dev'], { cwd: build });
    // Beside the folder, so that nothing of it is copied: types of packages that bring none.
    const types = join(dir, 'node_modules');
    await mkdir(types);
    await symlink(join(ROOT, 'node_modules/@types'), join(types, '@types'));
    await run(
      join(ROOT, 'node_modules/.bin/tsc'),
      ['-p', join(build, 'tsconfig.build.json'), '--typeRoots', join(ROOT, 'node_modules/@types')],
      { cwd: build },
    );
    await rm(types, { recursive: true });
  }
  network = await PodNetwork.create('image');
  pod = await network.addPod('image');
});

after(async () => {
  await network?.dispose();
  if (dir !== undefined) await rm(dir, { recursive: true, force: true });
});

function stages(): { isLast: boolean; lines: readonly string[] }[] {
  const starts = dockerfile.flatMap((line, index) => (line.startsWith('FROM ') ? [index] : []));
  return starts.map((start, index) => ({ isLast: index === starts.length - 1, lines: dockerfile.slice(start, starts[index + 1]) }));
}

function copiesOf(lines: readonly string[]): { sources: readonly string[]; target: string; isFromBuild: boolean }[] {
  return lines
    .filter((line) => line.startsWith('COPY '))
    .map((line) => {
      const words = line.split(/\s+/).slice(1);
      const paths = words.filter((word) => !word.startsWith('--'));
      return { sources: paths.slice(0, -1), target: paths.at(-1) ?? '', isFromBuild: words.includes('--from=build') };
    });
}

/** The image's entry point, with its own paths. */
function entryPoint(): string[] {
  const line = dockerfile.find((one) => one.startsWith('ENTRYPOINT '));
  const [node, ...rest] = JSON.parse(line?.slice('ENTRYPOINT '.length) ?? '[]') as string[];
  assert.equal(node, 'node');
  return [process.execPath, ...rest.map((word) => word.replace(/^\/app\//, `${dir}/app/`))];
}

test('it is uid 1337, and starts with nothing but what was copied', async () => {
  assert.ok(dockerfile.includes('USER 1337:1337'));
  const { stdout } = await pod.exec([...entryPoint(), '--help'], { uid: 1337, gid: 1337, cwd: join(dir, 'app') });
  for (const role of ['proxy', 'agent', 'ca', 'control', 'injector', 'wait']) assert.match(stdout, new RegExp(`^ +${role} `, 'm'));
});

test('every role can be loaded', async () => {
  for (const role of ['proxy', 'agent', 'ca', 'control', 'injector', 'inject', 'wait', 'up']) {
    const { stdout } = await pod.exec([...entryPoint(), role, '--help'], { uid: 1337, gid: 1337, cwd: join(dir, 'app') });
    assert.match(stdout, new RegExp(`usage: handfast ${role}`));
  }
});

test('the init container’s command redirects, with its two capabilities and no more', async () => {
  const drop = ['setpriv', '--bounding-set=-all,+net_admin,+net_raw', '--no-new-privs', '--'];
  await pod.exec([...drop, ...entryPoint(), 'iptables', 'apply'], { cwd: join(dir, 'app') });
  const { stdout } = await pod.exec(['iptables-save', '-t', 'nat']);
  assert.match(stdout, /HANDFAST_INBOUND/);
  const without = await pod.attempt(['setpriv', '--bounding-set=-all', '--no-new-privs', '--', ...entryPoint(), 'iptables', 'apply'], {
    cwd: join(dir, 'app'),
  });
  assert.equal(without.code, 1);
});

test('the sidecar listens as uid 1337 without a capability, and is not ready without an agent', async () => {
  await writeFile(join(dir, 'token'), 'none', { mode: 0o644 });
  const args = ['proxy', '--agent=unix:/nowhere/agent.sock', `--token-file=${join(dir, 'token')}`, '--pod-name=x', '--pod-namespace=foo'];
  const child = pod.spawn([
    'setpriv',
    '--reuid=1337',
    '--regid=1337',
    '--clear-groups',
    '--bounding-set=-all',
    '--no-new-privs',
    '--',
    ...entryPoint(),
    ...args,
  ]);
  assert.ok(child.stdout !== null);
  for await (const line of createInterface(child.stdout)) if (line.includes('sidecar listening')) break;
  const waiting = await pod.attempt([...entryPoint(), 'wait', '--timeout=1s'], { uid: 1337, gid: 1337 });
  assert.equal(waiting.code, 1);
  assert.match(waiting.stderr, /identity|certificate|policy/);
  child.kill('SIGTERM');
});
