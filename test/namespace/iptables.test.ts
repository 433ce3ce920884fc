// The capture script against real kernels: what it leaves in the rule tables, and where connections really arrive.

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type ExecResult, type Pod, PodNetwork, requireNamespaces } from '../support/namespaces.ts';

const SCRIPT = fileURLToPath(new URL('../../iptables/handfast-iptables.sh', import.meta.url));
const SYSTEM_PATH = [process.env.PATH ?? '', '/usr/sbin', '/sbin'].join(delimiter);
const skip = requireNamespaces();

let scratch: string;
let network: PodNetwork;
let podCount = 0;

before(async () => {
  if (skip !== false) return;
  scratch = await mkdtemp(join(tmpdir(), 'hf-ipt-'));
  network = await PodNetwork.create('ipt');
});

after(async () => {
  if (skip !== false) return;
  await network.dispose();
  await rm(scratch, { recursive: true });
});

function freshPod(): Promise<Pod> {
  podCount += 1;
  return network.addPod(`p${podCount}`);
}

/** A directory for the front of PATH. A target that starts with '/' becomes a link, anything else a shell script. */
async function toolsDirectory(tools: Readonly<Record<string, string>>): Promise<string> {
  const directory = await mkdtemp(join(scratch, 'bin-'));
  for (const [name, target] of Object.entries(tools)) {
    const file = join(directory, name);
    if (target.startsWith('/')) await symlink(target, file);
    else {
      await writeFile(file, `#!/bin/sh\n${target}\n`);
      await chmod(file, 0o755);
    }
  }
  return directory;
}

function pathWith(...directories: readonly string[]): { PATH: string } {
  return { PATH: [...directories, SYSTEM_PATH].join(delimiter) };
}

/** The multi-call binary behind one variant of iptables, where it is installed. */
async function multiBinary(variant: 'nft' | 'legacy'): Promise<string | undefined> {
  for (const directory of ['/usr/sbin', '/sbin', '/usr/bin']) {
    const found = await realpath(join(directory, `xtables-${variant}-multi`)).catch(() => undefined);
    if (found !== undefined) return found;
  }
  return undefined;
}

for (const variant of ['nft', 'legacy'] as const) {
  const multi = skip === false ? await multiBinary(variant) : undefined;
  if (multi === undefined && process.env.CI === 'true') throw new Error(`CI=true, and this machine has no xtables-${variant}-multi`);
  const unavailable = skip !== false ? skip : multi === undefined ? `this machine has no xtables-${variant}-multi` : false;

  describe(`the rule tables, ${variant} iptables`, { skip: unavailable }, () => {
    let bin: string;

    before(async () => {
      const names = ['iptables-save', 'iptables-restore', 'ip6tables-save', 'ip6tables-restore', 'iptables', 'ip6tables'];
      bin = await toolsDirectory(Object.fromEntries(names.map((name) => [name, multi ?? ''])));
    });

    function script(pod: Pod, args: readonly string[], ...fakes: readonly string[]): Promise<ExecResult> {
      return pod.attempt(['sh', SCRIPT, ...args], { env: pathWith(...fakes, bin) });
    }

    /** Everything the script could have changed, without time stamps and counters. */
    async function state(pod: Pod): Promise<string> {
      const env = pathWith(bin);
      const { stdout } = await pod.exec(['sh', '-c', 'iptables-save; ip6tables-save; ip addr show dev lo'], { env });
      return stdout.replaceAll(/^#.*\n/gm, '').replaceAll(/ \[\d+:\d+\]$/gm, '');
    }

    async function succeed(pod: Pod, ...args: readonly string[]): Promise<string> {
      const { code, stdout, stderr } = await script(pod, args);
      assert.equal(code, 0, stderr);
      assert.equal(stderr, '');
      return stdout;
    }

    test('applying twice leaves what applying once left', async () => {
      const pod = await freshPod();
      await succeed(pod, 'apply', '--exclude-inbound-ports', '22', '--exclude-interfaces', 'eth1');
      const once = await state(pod);
      assert.match(once, /HANDFAST_OUTPUT.*HANDFAST_REDIRECT/s);
      assert.match(once, /inet6 ::6\/128/);
      await succeed(pod, 'apply', '--exclude-inbound-ports', '22', '--exclude-interfaces', 'eth1');
      assert.equal(await state(pod), once);
    });

    test('applying with other options replaces, as if they had been the first', async () => {
      const [changed, fresh] = await Promise.all([freshPod(), freshPod()]);
      await succeed(changed, 'apply', '--exclude-inbound-ports', '22', '--include-outbound-ip-ranges', '10.0.0.0/8,fd00::/8');
      const options = ['--include-inbound-ports', '80', '--exclude-outbound-ports', '3306', '--proxy-uid', '2000'];
      await succeed(changed, 'apply', ...options);
      await succeed(fresh, 'apply', ...options);
      assert.equal(await state(changed), await state(fresh));
    });

    test('applying with --ipv6 off removes the IPv6 rules of an earlier apply', async () => {
      const pod = await freshPod();
      await succeed(pod, 'apply');
      const rules6 = async () => (await pod.exec(['ip6tables-save'], { env: pathWith(bin) })).stdout;
      assert.match(await rules6(), /HANDFAST/);
      await succeed(pod, 'apply', '--ipv6', 'off');
      assert.doesNotMatch(await rules6(), /HANDFAST/);
    });

    test("other people's rules survive, in their places", async () => {
      const pod = await freshPod();
      const foreign = async (...rules: readonly string[]) => {
        for (const rule of rules) await pod.exec(['sh', '-c', rule], { env: pathWith(bin) });
      };
      await foreign(
        'iptables -t nat -N THEIRS',
        'iptables -t nat -A THEIRS -p udp -m comment --comment "ours, not -j HANDFAST" -j RETURN',
        'iptables -t nat -A PREROUTING -p tcp --dport 8443 -j THEIRS',
        'iptables -t nat -A OUTPUT -d 192.0.2.1/32 -p tcp -j REDIRECT --to-ports 9999',
        'ip6tables -t nat -A POSTROUTING -s 2001:db8::/32 -j MASQUERADE',
        'iptables -A INPUT -p tcp --dport 1 -j DROP',
      );
      await succeed(pod, 'apply');
      await foreign('iptables -t nat -A OUTPUT -d 192.0.2.2/32 -p tcp -j RETURN');
      const applied = await state(pod);
      await succeed(pod, 'apply', '--exclude-inbound-ports', '22');
      await succeed(pod, 'apply');
      assert.equal(await state(pod), applied);

      await succeed(pod, 'clean');
      const cleaned = await state(pod);
      const ours = (line: string) => /:HANDFAST_|^-A HANDFAST_|-j HANDFAST_|::6\/128/.test(line);
      const theirs = applied.split('\n').filter((line, index, all) => !ours(line) && !ours(all[index - 1] ?? ''));
      assert.equal(cleaned.split('\n').filter(ours).length, 0);
      for (const line of theirs) assert.ok(cleaned.includes(line), line);
      assert.match(cleaned, /ours, not -j HANDFAST/);
      assert.match(cleaned, /-A OUTPUT -d 192\.0\.2\.1\/32.*\n-A OUTPUT -d 192\.0\.2\.2\/32/);
    });

    test('cleaning leaves nothing, also twice, also where nothing was', async () => {
      const pod = await freshPod();
      const never = await state(pod);
      await succeed(pod, 'clean');
      assert.equal(await state(pod), never);
      await succeed(pod, 'apply');
      await succeed(pod, 'clean');
      const cleaned = await state(pod);
      assert.doesNotMatch(cleaned, /HANDFAST|::6\/128/);
      assert.doesNotMatch(cleaned, /^-A/m);
      await succeed(pod, 'clean');
      assert.equal(await state(pod), cleaned);
    });

    test('a dry run of apply and of clean changes nothing and tells all', async () => {
      const pod = await freshPod();
      const never = await state(pod);
      const told = await succeed(pod, 'apply', '--dry-run');
      assert.match(told, /iptables-restore.*-A PREROUTING -p tcp -j HANDFAST_INBOUND.*::6\/128.*ip6tables-restore/s);
      assert.equal(await state(pod), never);
      await succeed(pod, 'apply');
      const applied = await state(pod);
      assert.match(await succeed(pod, 'clean', '--dry-run'), /-X HANDFAST_INBOUND.*ip -6 addr del ::6\/128/s);
      assert.match(await succeed(pod, 'apply', '--dry-run', '--exclude-inbound-ports', '22'), /--dport 22/);
      assert.equal(await state(pod), applied);
    });

    describe('when IPv6 fails', () => {
      let broken: string;
      before(async () => {
        broken = await toolsDirectory({ 'ip6tables-restore': 'echo no such table >&2; exit 1' });
      });

      test('nothing is left of a first apply', async () => {
        const pod = await freshPod();
        const { code, stderr } = await script(pod, ['apply'], broken);
        assert.equal(code, 1);
        assert.match(stderr, /no such table\n.*IPv6: the rules were refused.*--ipv6 off/s);
        assert.match(stderr, /Everything is as it was before/);
        const left = await state(pod);
        assert.doesNotMatch(left, /HANDFAST|::6\/128/);
        await succeed(pod, 'apply');
        assert.match(await state(pod), /HANDFAST/);
      });

      test('the old rules come back when a changed configuration is applied', async () => {
        const pod = await freshPod();
        await succeed(pod, 'apply', '--exclude-inbound-ports', '22', '--exclude-outbound-ip-ranges', '192.0.2.0/24,2001:db8::/32');
        const old = await state(pod);
        const { code } = await script(pod, ['apply', '--include-inbound-ports', '80', '--proxy-gid', '2000'], broken);
        assert.equal(code, 1);
        assert.equal(await state(pod), old);
      });

      test('only --ipv6 off accepts that IPv6 bypasses the mesh', async () => {
        const pod = await freshPod();
        for (const mode of ['auto', 'on']) {
          assert.equal((await script(pod, ['apply', '--ipv6', mode], broken)).code, 1);
        }
        const { code, stdout } = await script(pod, ['apply', '--ipv6', 'off'], broken);
        assert.equal(code, 0);
        assert.match(stdout, /IPv6 traffic bypasses the mesh/);
      });

      test('a namespace without IPv6 does not need it under auto, and fails under on', async () => {
        const pod = await freshPod();
        await pod.exec(['sh', '-c', 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6']);
        const { code, stderr } = await script(pod, ['apply', '--ipv6', 'on']);
        assert.equal(code, 1);
        assert.match(stderr, /--ipv6 on: this network namespace has no IPv6/);
        assert.doesNotMatch(await state(pod), /HANDFAST/);
        assert.equal((await script(pod, ['apply'], broken)).code, 0);
        assert.match(await state(pod), /HANDFAST/);
      });

      test('::6 that cannot be put on lo undoes everything', async () => {
        const pod = await freshPod();
        await pod.exec(['sh', '-c', 'echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6']);
        const { code, stderr } = await script(pod, ['apply']);
        assert.equal(code, 1);
        assert.match(stderr, /::6 could not be put on lo/);
        assert.doesNotMatch(await state(pod), /HANDFAST/);
        await pod.exec(['sh', '-c', 'echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6']);
        await succeed(pod, 'apply');
      });

      test('a roll-back that fails too is told apart by exit code 3', async () => {
        const pod = await freshPod();
        const marker = join(scratch, `called-${variant}`);
        const once = await toolsDirectory({
          'iptables-restore': `[ ! -e ${marker} ] || exit 1; : >${marker}; exec ${bin}/iptables-restore "$@"`,
        });
        const { code, stderr } = await script(pod, ['apply'], once, broken);
        assert.equal(code, 3);
        assert.match(stderr, /roll-back failed too: IPv4/);
        await succeed(pod, 'clean');
        assert.doesNotMatch(await state(pod), /HANDFAST/);
      });

      test('a signal in the middle undoes everything', async () => {
        const pod = await freshPod();
        await succeed(pod, 'apply', '--exclude-inbound-ports', '22');
        const old = await state(pod);
        const signalling = await toolsDirectory({ 'ip6tables-restore': `kill -TERM "$PPID"; exec ${bin}/ip6tables-restore "$@"` });
        const { code, stderr } = await script(pod, ['apply'], signalling);
        assert.equal(code, 1);
        assert.match(stderr, /interrupted by a signal/);
        assert.equal(await state(pod), old);
      });
    });
  });
}

// ---- where connections arrive ----

/** Listens on each port and answers every connection with the name of the port and the caller's address. */
const ANSWER = `
  const ports = JSON.parse(process.argv[1]);
  let pending = Object.keys(ports).length;
  for (const [port, name] of Object.entries(ports)) {
    require('node:net')
      .createServer((socket) => { socket.on('error', () => {}); socket.end(name + ' ' + socket.remoteAddress.replace('::ffff:', '')); })
      .listen(Number(port), '::', () => { pending -= 1; if (pending === 0) console.log('ready'); });
  }`;

/** Dials every target and prints what each answered, or its error's code. */
const DIAL = `
  const targets = JSON.parse(process.argv[1]);
  const dial = (target) => new Promise((resolve) => {
    let text = '';
    const socket = require('node:net').connect({ ...target, timeout: 3000 });
    socket.on('data', (chunk) => { text += chunk; });
    socket.on('end', () => resolve(text));
    socket.on('timeout', () => { socket.destroy(); resolve('timeout'); });
    socket.on('error', (error) => resolve(error.code));
  });
  Promise.all(targets.map(dial)).then((answers) => console.log(JSON.stringify(answers)));`;

interface Target {
  readonly host: string;
  readonly port: number;
  readonly localAddress?: string;
}

interface Caller {
  readonly uid: number;
  readonly gid: number;
}

const APPLICATION: Caller = { uid: 1000, gid: 1000 };
const ROOT: Caller = { uid: 0, gid: 0 };
const PROXY: Caller = { uid: 1337, gid: 1337 };
const PROXY_UID_ONLY: Caller = { uid: 1337, gid: 1000 };
const PROXY_GID_ONLY: Caller = { uid: 1000, gid: 1337 };

async function answer(pod: Pod, caller: Caller, ports: Readonly<Record<number, string>>): Promise<ChildProcess> {
  const server = pod.spawn([process.execPath, '-e', ANSWER, '--', JSON.stringify(ports)], caller);
  assert.ok(server.stdout !== null && server.stderr !== null);
  server.stderr.pipe(process.stderr);
  await Promise.race([
    once(server.stdout, 'data'),
    once(server, 'exit').then(() => {
      throw new Error(`the servers of ${pod.name} did not start`);
    }),
  ]);
  return server;
}

describe('capture', { skip }, () => {
  let pod: Pod;
  let peer: Pod;

  before(async () => {
    [pod, peer] = await Promise.all([network.addPod('captured'), network.addPod('peer')]);
    await Promise.all([
      answer(pod, PROXY, { 15001: 'outbound', 15006: 'inbound', 15008: 'tunnel', 15020: 'metrics', 15021: 'readiness' }),
      answer(pod, APPLICATION, { 8080: 'application', 9090: 'application' }),
      answer(peer, APPLICATION, { 8080: 'peer', 9090: 'peer', 15008: 'peer' }),
    ]);
  });

  async function dial(from: Pod, caller: Caller, targets: readonly Target[]): Promise<string[]> {
    const { stdout } = await from.exec([process.execPath, '-e', DIAL, '--', JSON.stringify(targets)], caller);
    const answers: unknown = JSON.parse(stdout);
    assert.ok(Array.isArray(answers));
    return answers.map(String);
  }

  async function apply(...options: readonly string[]): Promise<void> {
    await pod.exec(['sh', SCRIPT, 'apply', ...options]);
  }

  type Row = readonly [Target, string];

  /** One family's destinations, so that a test can name them once for both. */
  interface Family {
    readonly own: (port: number, localAddress?: string) => Target;
    readonly remote: (port: number) => Target;
    readonly service: Target;
    readonly local: (port: number) => Target;
    readonly passthrough: string;
  }

  function families(): [ipv4: Family, ipv6: Family] {
    const family = (of: (p: Pod) => string, service: string, loopback: string, passthrough: string): Family => ({
      own: (port, localAddress) => ({ host: of(pod), port, ...(localAddress === undefined ? {} : { localAddress }) }),
      remote: (port) => ({ host: of(peer), port }),
      service: { host: service, port: 80 },
      local: (port) => ({ host: loopback, port }),
      passthrough,
    });
    return [family((p) => p.ipv4, '10.96.0.10', '127.0.0.1', '127.0.0.6'), family((p) => p.ipv6, 'fd00:96::a', '::1', '::6')];
  }

  /** Each row is one connection, in IPv4 and in IPv6, and the listener that it must reach. */
  async function reaches(from: Pod, caller: Caller, rows: (family: Family) => readonly Row[]): Promise<void> {
    await reachesExactly(from, caller, families().flatMap(rows));
  }

  async function reachesExactly(from: Pod, caller: Caller, rows: readonly Row[]): Promise<void> {
    const targets = rows.map(([target]) => target);
    const answers = await dial(from, caller, targets);
    const told = (target: Target | undefined, reached: string | undefined) =>
      `${target?.host} port ${target?.port} from uid ${caller.uid} gid ${caller.gid} reaches ${reached}`;
    assert.deepEqual(
      answers.map((text, index) => told(targets[index], text.split(' ')[0])),
      rows.map(([target, expected]) => told(target, expected)),
    );
  }

  test('without rules every connection goes where it was sent', async () => {
    await reaches(pod, APPLICATION, ({ remote, service, own }) => [
      [remote(8080), 'peer'],
      [service, 'ECONNREFUSED'],
      [own(8080), 'application'],
    ]);
    await reaches(peer, APPLICATION, ({ own }) => [
      [own(8080), 'application'],
      [own(15021), 'readiness'],
    ]);
  });

  describe('with the default rules', () => {
    before(() => apply());

    test("an application's outbound connections reach the outbound listener", async () => {
      for (const caller of [APPLICATION, ROOT]) {
        await reaches(pod, caller, ({ remote, service }) => [
          [remote(8080), 'outbound'],
          [remote(15008), 'outbound'],
          [remote(53), 'outbound'],
          [service, 'outbound'],
        ]);
      }
    });

    test('connections within the pod are left alone', async () => {
      await reaches(pod, APPLICATION, ({ own, local }) => [
        [own(8080), 'application'],
        [local(8080), 'application'],
        [local(15021), 'readiness'],
      ]);
    });

    test('the proxy, told by uid, by gid or by both, is not captured', async () => {
      for (const caller of [PROXY, PROXY_UID_ONLY, PROXY_GID_ONLY]) {
        await reaches(pod, caller, ({ remote, service, local }) => [
          [remote(8080), 'peer'],
          [remote(15008), 'peer'],
          [service, 'ECONNREFUSED'],
          [local(8080), 'application'],
        ]);
      }
    });

    test('the proxy calling its own pod, told by uid, by gid or by both, comes in through the inbound listener', async () => {
      for (const caller of [PROXY, PROXY_UID_ONLY, PROXY_GID_ONLY]) {
        await reaches(pod, caller, ({ own }) => [
          [own(8080), 'inbound'],
          [own(15006), 'inbound'],
          [own(15001), 'inbound'],
          [own(15008), 'tunnel'],
          [own(15020), 'metrics'],
          [own(15021), 'readiness'],
        ]);
      }
    });

    test('the inbound listener hands over from the pass-through address, and the application sees it', async () => {
      const handedOver = families().map(({ own, passthrough }) => own(8080, passthrough));
      assert.deepEqual(await dial(pod, PROXY, handedOver), ['application 127.0.0.6', 'application ::6']);
      await reaches(pod, PROXY, ({ own }) => [[own(8080), 'inbound']]);
    });

    test("connections from outside reach the inbound listener with the caller's address", async () => {
      const targets = families().map(({ own }) => own(8080));
      assert.deepEqual(await dial(peer, APPLICATION, targets), [`inbound ${peer.ipv4}`, `inbound ${peer.ipv6}`]);
    });

    test("dials of the proxy's own ports from outside reach the inbound listener, which can refuse them", async () => {
      await reaches(peer, APPLICATION, ({ own }) => [
        [own(7777), 'inbound'],
        [own(15000), 'inbound'],
        [own(15001), 'inbound'],
        [own(15006), 'inbound'],
      ]);
    });

    test('tunnel, metrics and readiness are reached from outside as they are', async () => {
      await reaches(peer, ROOT, ({ own }) => [
        [own(15008), 'tunnel'],
        [own(15020), 'metrics'],
        [own(15021), 'readiness'],
      ]);
    });

    test('a resolver on a loopback address, asked by the proxy over TCP, is not taken for a service', async () => {
      const resolver = { host: '127.0.0.53', port: 8080 };
      await reachesExactly(pod, PROXY, [[resolver, 'application']]);
      await reachesExactly(pod, APPLICATION, [[resolver, 'application']]);
    });
  });

  test('excluded ports bypass the proxy, for the proxy calling its own pod too', async () => {
    await apply('--exclude-inbound-ports', '9090', '--exclude-outbound-ports', '9090');
    await reaches(peer, APPLICATION, ({ own }) => [
      [own(9090), 'application'],
      [own(8080), 'inbound'],
    ]);
    await reaches(pod, APPLICATION, ({ remote }) => [
      [remote(9090), 'peer'],
      [remote(8080), 'outbound'],
    ]);
    await reaches(pod, PROXY, ({ own }) => [
      [own(9090), 'application'],
      [own(8080), 'inbound'],
    ]);
  });

  test('only included ports are captured', async () => {
    await apply('--include-inbound-ports', '9090', '--include-outbound-ports', '9090', '--include-outbound-ip-ranges', '');
    await reaches(peer, APPLICATION, ({ own }) => [
      [own(9090), 'inbound'],
      [own(8080), 'application'],
      [own(15006), 'inbound'],
      [own(15001), 'outbound'],
    ]);
    await reaches(pod, APPLICATION, ({ remote }) => [
      [remote(9090), 'outbound'],
      [remote(8080), 'peer'],
    ]);
  });

  test('only included ranges are captured', async () => {
    await apply('--include-outbound-ip-ranges', '10.96.0.0/16,fd00:96::/32');
    await reaches(pod, APPLICATION, ({ service, remote }) => [
      [service, 'outbound'],
      [remote(8080), 'peer'],
    ]);
  });

  test('excluded ranges bypass the proxy, also inside an included range', async () => {
    const pods = '10.244.0.0/16,fd00:10:244::/64';
    await apply('--include-outbound-ip-ranges', '10.0.0.0/8,fd00::/16', '--exclude-outbound-ip-ranges', pods);
    await reaches(pod, APPLICATION, ({ service, remote }) => [
      [service, 'outbound'],
      [remote(8080), 'peer'],
    ]);
  });

  test('excluded interfaces stay out both ways, others do not', async () => {
    await apply('--exclude-interfaces', 'eth0');
    await reaches(peer, APPLICATION, ({ own }) => [[own(8080), 'application']]);
    await reaches(pod, APPLICATION, ({ remote }) => [[remote(8080), 'peer']]);
    await reaches(pod, PROXY, ({ own }) => [[own(8080), 'inbound']]);
    await apply('--exclude-interfaces', 'eth1');
    await reaches(peer, APPLICATION, ({ own }) => [[own(8080), 'inbound']]);
    await reaches(pod, APPLICATION, ({ remote }) => [[remote(8080), 'outbound']]);
  });

  test('with --ipv6 off IPv4 is captured and IPv6 is not', async () => {
    await apply('--ipv6', 'off');
    const [ipv4, ipv6] = families();
    await reachesExactly(pod, APPLICATION, [
      [ipv4.remote(8080), 'outbound'],
      [ipv6.remote(8080), 'peer'],
    ]);
  });

  test('after a clean-up every connection goes where it was sent again', async () => {
    await apply();
    await pod.exec(['sh', SCRIPT, 'clean']);
    await reaches(pod, APPLICATION, ({ remote }) => [[remote(8080), 'peer']]);
    await reaches(peer, APPLICATION, ({ own }) => [[own(8080), 'application']]);
  });
});
