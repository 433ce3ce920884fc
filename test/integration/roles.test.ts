// The roles as processes of their own, put together by their flags as an operator would.

import assert from 'node:assert/strict';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { handfast, Role } from '../support/handfast.ts';

const EXAMPLE = fileURLToPath(new URL('../../examples/config', import.meta.url));

let dir: string;
const at = (name: string) => join(dir, name);

before(async () => {
  dir = await mkdtemp(join(tmpdir(), 'hf-roles-'));
});
after(() => rm(dir, { recursive: true }));

async function makeProxy(agentSocket: string, state: string): Promise<Role> {
  const { code, stdout, stderr } = await handfast(
    'token',
    'create',
    '--namespace',
    'bar',
    '--service-account',
    'httpbin',
    '--state',
    state,
  );
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^[\w-]+\.[\w-]+\.[\w-]+\n$/);
  await writeFile(at('token'), stdout);
  const ports = [
    '--inbound-port',
    '0',
    '--outbound-port',
    '0',
    '--tunnel-port',
    '0',
    '--readiness-port',
    '0',
    '--status-port=0',
    '--identity-port=0',
  ];
  return new Role(
    'proxy',
    '--agent',
    `unix:${agentSocket}`,
    '--token-file',
    at('token'),
    '--pod-name',
    'httpbin',
    '--pod-namespace',
    'bar',
    ...ports,
  );
}

async function awaitReady(proxy: Role): Promise<void> {
  const { ports } = await proxy.said('sidecar listening');
  await proxy.said('identity in force');
  await proxy.said('policy in force');
  await proxy.said('revocation list in force');
  const response = await fetch(`http://127.0.0.1:${(ports as { readiness: number }).readiness}/healthz/ready`);
  assert.equal(response.status, 200, await response.text());
}

describe('roles', () => {
  it('ca-control-and-agent-apart-serve-a-sidecar-from-the-example-directory', async () => {
    await using ca = new Role('ca', '--state', at('ca'), '--socket', at('ca.sock'), '--svid-ttl', '10s');
    await using control = new Role('control', '--config', EXAMPLE, '--socket', at('control.sock'));
    await ca.said('CA listening');
    await control.said('control listening');
    await using agent = new Role(
      'agent',
      '--socket',
      at('agent.sock'),
      '--ca',
      `unix:${at('ca.sock')}`,
      '--control',
      `unix:${at('control.sock')}`,
    );
    await agent.said('agent listening');
    await using proxy = await makeProxy(at('agent.sock'), at('ca'));
    await awaitReady(proxy);
    const policy = await proxy.said('policy in force');
    assert.deepEqual([policy.mode, policy.modeSource, policy.ports], ['STRICT', 'PeerAuthentication bar/httpbin', { 9090: 'PERMISSIVE' }]);
    assert.equal((await stat(at('ca.sock'))).mode & 0o777, 0o600);
    assert.equal((await stat(at('agent.sock'))).mode & 0o777, 0o666);
    assert.equal(await proxy.stop(), 0);
    assert.equal(await agent.stop(), 0);
  });

  it('up-is-all-three-in-one-process', async () => {
    await using up = new Role('up', '--config', EXAMPLE, '--state', at('up/ca'), '--run-dir', at('up/run'));
    await up.said('agent listening');
    await using proxy = await makeProxy(at('up/run/agent.sock'), at('up/ca'));
    await awaitReady(proxy);
    const second = await handfast('up', '--config', EXAMPLE, '--state', at('up/ca'), '--run-dir', at('up/run'));
    assert.equal(second.code, 2);
    assert.match(second.stderr, /is served by another process/);
    assert.equal(await proxy.stop(), 0);
    assert.equal(await up.stop(), 0);
  });
});

describe('wrong command lines say what is right', () => {
  const cases: readonly [readonly string[], RegExp][] = [
    [['frob'], /there is no role "frob"; there are: proxy, agent, ca/],
    [['proxy'], /--pod-name NAME is needed/],
    [['proxy', '--frob'], /Unknown option '--frob'/],
    [
      ['proxy', '--pod-name', 'a', '--pod-namespace', 'b', '--dial-timeout', '5'],
      /--dial-timeout "5" is not accepted: a duration from 10ms to 5m/,
    ],
    [['proxy', '--pod-name', 'a', '--pod-namespace', 'b', '--inbound-port', '70000'], /a port from 0 to 65535/],
    [['proxy', '--pod-name', 'a', '--pod-namespace', 'b', '--token-file', '/nonexistent'], /token file: .*\/nonexistent/],
    [['ca', '--svid-ttl', '48h'], /--svid-ttl "48h" is not accepted: a duration from 10s to 24h/],
    [['ca', '--svid-ttl', '5s'], /--svid-ttl "5s" is not accepted/],
    [['up'], /--config DIR is needed/],
    [['up', '--config', '/nonexistent'], /cannot read \/nonexistent/],
    [['up', '--config', EXAMPLE, '--trust-domain', 'Upper Case'], /trust domain "Upper Case"/],
    [['token', 'make'], /the only verb is "create"/],
    [['iptables', 'apply', '--exclude-inbound-ports', 'x'], /exclude-inbound-ports/],
  ];
  for (const [args, message] of cases) {
    it(args.map((arg) => (arg === EXAMPLE ? 'DIR' : arg)).join(' '), async () => {
      const { code, stderr, stdout } = await handfast(...args);
      assert.match(stderr, message);
      assert.equal(code, 2);
      assert.equal(stdout, '');
    });
  }

  it('help-of-every-role-exits-zero', async () => {
    for (const args of [
      ['--help'],
      ...['proxy', 'agent', 'ca', 'control', 'up', 'iptables'].map((role) => [role, '--help']),
      ['token', 'create', '--help'],
    ]) {
      const { code, stdout } = await handfast(...args);
      assert.equal(code, 0, args.join(' '));
      assert.match(stdout, /usage: /);
    }
  });
});
