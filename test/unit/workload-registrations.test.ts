// The registrations file: what is refused with its line, what matches whom, and what happens when it or a token file changes.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtemp, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { Attestor } from '../../src/agent/attestor.ts';
import { PolledFile } from '../../src/agent/polled-file.ts';
import { parseRegistrations } from '../../src/agent/registration-file.ts';
import { matches } from '../../src/agent/selectors.ts';
import { type Registration, WorkloadRegistrations } from '../../src/agent/workload-registrations.ts';
import type { PeerCredentials } from '../../src/net/peer-credentials.ts';
import type { Snapshot } from '../../src/snapshot.ts';
import { RecordingLog } from '../support/sidecar-harness.ts';

const ID = 'spiffe://cluster.local/ns/bar/sa/httpbin';
const peer = (change: Partial<PeerCredentials> = {}): PeerCredentials => ({
  pid: 1,
  uid: 1000,
  gid: 1000,
  networkNamespace: 1,
  cgroup: '/system.slice/httpbin.service',
  cgroups: '0::/system.slice/httpbin.service\n',
  alive: () => true,
  ...change,
});

const entry = (selectors: string, change: { id?: string; tokenFile?: string } = {}) => `  - spiffeId: ${change.id ?? ID}
    tokenFile: ${change.tokenFile ?? '/run/httpbin.token'}
    selectors: ${selectors}
`;
const file = (...entries: string[]) => `workloads:\n${entries.join('')}`;

describe('the file', () => {
  it('says-id-token-file-and-selectors', () => {
    const text = file(entry('{ networkNamespace: /run/netns/none, cgroup: /system.slice/httpbin.service, uid: 1000 }'));
    const [spec] = parseRegistrations(text, 'w.yaml');
    assert.equal(spec?.spiffeId.uri, ID);
    assert.equal(spec?.tokenFile, '/run/httpbin.token');
    assert.deepEqual(spec?.selectors, { networkNamespace: '/run/netns/none', cgroup: '/system.slice/httpbin.service', uid: 1000 });
  });

  it('may-be-an-empty-list', () => assert.deepEqual(parseRegistrations('workloads: []\n', 'w.yaml'), []));

  const good = '{ uid: 1 }';
  const refused: readonly [string, string, RegExp][] = [
    ['empty', '', /^w\.yaml:1: no list of workloads/],
    ['a-list', '- a\n', /^w\.yaml:1: no list/],
    ['not-yaml', 'workloads: [\n', /^w\.yaml:\d: not YAML/],
    ['two-documents', 'workloads: []\n---\nworkloads: []\n', /not YAML/],
    ['half-written', file(entry(good)).trimEnd(), /last line does not end/],
    ['unknown-field-at-the-top', 'workloads: []\nextra: 1\n', /^w\.yaml:2: unknown field extra; accepted: workloads/],
    [
      'unknown-field',
      `${file(entry(good))}    ttl: 5\n`,
      /^w\.yaml:5: unknown field workloads\.0\.ttl; accepted: spiffeId, tokenFile, selectors/,
    ],
    ['unknown-selector', file(entry(good), entry('{ uid: 1, pid: 5 }')), /^w\.yaml:7: unknown field workloads\.1\.selectors\.pid/],
    ['proto', file(entry('{ uid: 1, __proto__: {} }')), /unknown field __proto__/],
    ['an-alias', 'workloads: &w []\nmore: *w\n', /^w\.yaml:2: aliases/],
    ['a-key-twice', 'workloads: []\nworkloads: []\n', /^w\.yaml:2: not YAML: Map keys must be unique/],
    ['no-selectors', file(entry('{}')), /^w\.yaml:4: workloads\.0\.selectors: at least one/],
    ['selectors-missing', 'workloads:\n  - spiffeId: spiffe://a/b\n    tokenFile: /x\n', /selectors is missing/],
    ['no-spiffe-id', file(entry(good, { id: 'https://x' })), /^w\.yaml:2: workloads\.0\.spiffeId: not a SPIFFE ID/],
    ['a-trust-domain', file(entry(good, { id: 'spiffe://cluster.local' })), /names a trust domain/],
    ['a-relative-token-file', file(entry(good, { tokenFile: 'token' })), /^w\.yaml:3: .*absolute/],
    ['a-relative-namespace', file(entry('{ networkNamespace: httpbin }')), /absolute/],
    ['the-root-cgroup', file(entry('{ cgroup: / }')), /below the root/],
    ['a-cgroup-that-climbs', file(entry('{ cgroup: /a/../b }')), /below the root/],
    ['a-cgroup-with-a-slash-at-its-end', file(entry('{ cgroup: /a/ }')), /below the root/],
    ['a-negative-uid', file(entry('{ uid: -1 }')), /uid/],
    ['a-uid-that-is-no-number', file(entry('{ uid: root }')), /uid/],
    ['a-namespace-that-is-none', file(entry('{ networkNamespace: /etc/passwd }')), /^w\.yaml:4: .*is no network namespace/],
    [
      'the-agents-own-namespace-alone',
      file(entry('{ networkNamespace: /proc/self/ns/net }')),
      /the agent's own network namespace.*add cgroup or uid/,
    ],
  ];
  for (const [name, text, message] of refused) {
    it(`refused: ${name}`, () => assert.throws(() => parseRegistrations(text, 'w.yaml'), { code: 'CONFIG_INVALID', message }));
  }

  it('the-agents-own-namespace-together-with-a-user-is-accepted', () => {
    assert.equal(parseRegistrations(file(entry('{ networkNamespace: /proc/self/ns/net, uid: 1000 }')), 'w.yaml').length, 1);
  });
});

describe('selectors: all that are given must match', () => {
  it('by-user', () => {
    assert.equal(matches({ uid: 1000 }, peer()), true);
    assert.equal(matches({ uid: 0 }, peer()), false);
    assert.equal(matches({ uid: 0 }, peer({ uid: 0 })), true);
  });

  it('by-cgroup-and-its-descendants', () => {
    const cgroup = '/system.slice/httpbin.service';
    assert.equal(matches({ cgroup }, peer()), true);
    assert.equal(matches({ cgroup }, peer({ cgroup: `${cgroup}/worker` })), true);
    assert.equal(matches({ cgroup }, peer({ cgroup: `${cgroup}2` })), false);
    assert.equal(matches({ cgroup }, peer({ cgroup: '/system.slice' })), false);
    assert.equal(matches({ cgroup }, peer({ cgroup: undefined })), false);
  });

  it('by-network-namespace', async () => {
    const own = (await stat('/proc/self/ns/net')).ino;
    const selectors = { networkNamespace: '/proc/self/ns/net', uid: 1000 };
    assert.equal(matches(selectors, peer({ networkNamespace: own })), true);
    assert.equal(matches(selectors, peer({ networkNamespace: own + 1 })), false);
  });

  it('the-agents-own-namespace-alone-matches-nobody-even-if-it-became-so-later', async () => {
    const own = (await stat('/proc/self/ns/net')).ino;
    assert.equal(matches({ networkNamespace: '/proc/self/ns/net' }, peer({ networkNamespace: own })), false);
  });

  it('a-namespace-that-is-not-there-matches-nobody', () => {
    assert.equal(matches({ networkNamespace: '/run/netns/hf-none' }, peer()), false);
  });

  it('a-file-of-another-file-system-with-the-same-number-matches-nobody', async () => {
    const { ino } = await stat('/etc/passwd');
    assert.equal(matches({ networkNamespace: '/etc/passwd', uid: 1000 }, peer({ networkNamespace: ino })), false);
  });

  it('one-of-two-is-not-enough', () => {
    assert.equal(matches({ uid: 1000, cgroup: '/other' }, peer()), false);
    assert.equal(matches({ uid: 1, cgroup: '/system.slice/httpbin.service' }, peer()), false);
    assert.equal(matches({ uid: 1000, cgroup: '/system.slice/httpbin.service' }, peer()), true);
  });

  it('none-matches-nobody', () => assert.equal(matches({}, peer()), false));
});

describe('the file as it changes', () => {
  let dir: string;
  let log: RecordingLog;
  let stop: AbortController;
  let registrations: WorkloadRegistrations;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'hf-reg-'));
    log = new RecordingLog();
    stop = new AbortController();
    registrations = new WorkloadRegistrations({ file: join(dir, 'w.yaml'), log: log.log });
  });

  afterEach(async () => {
    stop.abort();
    await rm(dir, { recursive: true });
  });

  const write = async (name: string, text: string) => {
    await writeFile(join(dir, '.new'), text);
    await rename(join(dir, '.new'), join(dir, name));
  };
  const tokenFile = () => join(dir, 'token');
  const mine = (selectors = '{ uid: 1000 }', id?: string) =>
    entry(selectors, { tokenFile: tokenFile(), ...(id === undefined ? {} : { id }) });
  const only = (): Registration => {
    const [registration] = registrations.registrations.current ?? [];
    assert.ok(registration);
    return registration;
  };

  function next<T>(snapshot: Snapshot<T>): Promise<T> {
    return new Promise((resolve) => {
      const unsubscribe = snapshot.subscribe((value) => {
        unsubscribe();
        resolve(value);
      });
    });
  }

  it('a-start-with-a-file-that-is-missing-or-wrong-is-refused', async () => {
    await assert.rejects(registrations.start(stop.signal), { code: 'CONFIG_INVALID' });
    await write('w.yaml', 'workloads: 5\n');
    await assert.rejects(registrations.start(stop.signal), { code: 'CONFIG_INVALID' });
    await write('w.yaml', file(mine()));
    await registrations.start(stop.signal);
  });

  it('a-change-is-taken-and-what-stayed-the-same-stays-the-same', async () => {
    await write('token', 'abc\n');
    await write('w.yaml', file(mine()));
    await registrations.start(stop.signal);
    const before = only();
    assert.equal(before.token.current, 'abc');
    const changed = next(registrations.registrations);
    await write('w.yaml', file(mine(), mine('{ uid: 2000 }', 'spiffe://cluster.local/ns/bar/sa/second')));
    const after = await changed;
    assert.equal(after.length, 2);
    assert.equal(after[0], before);
    assert.equal(after[1]?.token.current, 'abc');
    assert.deepEqual(registrations.match(peer({ uid: 2000 })), [after[1]]);
  });

  it('a-wrong-change-is-logged-with-its-line-and-the-last-good-state-stays', async () => {
    await write('token', 'abc');
    await write('w.yaml', file(mine()));
    await registrations.start(stop.signal);
    const before = registrations.registrations.current;
    await write('w.yaml', file(mine('{ uid: many }')));
    const refused = await log.find(({ msg }) => msg?.startsWith('workload registrations refused') === true);
    assert.match(String(refused.problems), /w\.yaml:4: workloads\.0\.selectors\.uid/);
    assert.equal(registrations.registrations.current, before);
    const changed = next(registrations.registrations);
    await write('w.yaml', 'workloads: []\n');
    assert.deepEqual(await changed, []);
  });

  it('a-file-that-goes-away-leaves-the-last-good-state', async () => {
    await write('w.yaml', file(mine()));
    await registrations.start(stop.signal);
    await rm(join(dir, 'w.yaml'));
    await log.find(({ msg }) => msg?.startsWith('workload registrations refused') === true);
    assert.equal(registrations.registrations.current?.length, 1);
  });

  it('a-token-that-comes-later-or-changes-is-taken-and-one-that-goes-stays', async () => {
    await write('w.yaml', file(mine()));
    await registrations.start(stop.signal);
    await log.find(({ msg }) => msg === 'token not readable, nothing is served for the workload');
    const { token } = only();
    assert.equal(token.current, undefined);
    let changed = next(token);
    await write('token', 'first\n');
    assert.equal(await changed, 'first');
    changed = next(token);
    await write('token', 'second\n');
    assert.equal(await changed, 'second');
    await write('token', 'two words\n');
    await log.find(({ msg, reason }) => msg === 'token not readable, the last token stays in use' && reason === 'it holds no token');
    await rm(tokenFile());
    await log.find(({ msg, reason }) => msg === 'token not readable, the last token stays in use' && String(reason).includes('ENOENT'));
    assert.equal(token.current, 'second');
  });
});

describe('a file that is none', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'hf-poll-'));
  });
  afterEach(async () => {
    await rm(dir, { recursive: true });
  });
  const polled = () => new PolledFile(join(dir, 'f'), { maxBytes: 10 });

  it('a-fifo-holds-nobody-up', async () => {
    execFileSync('mkfifo', [join(dir, 'f')]);
    await assert.rejects(polled().read(), { code: 'CONFIG_INVALID', message: /no regular file/ });
    await assert.rejects(polled().changed(), { code: 'CONFIG_INVALID', message: /no regular file/ });
  });

  it('a-device-behind-a-link-is-not-read-and-a-file-behind-one-is', async () => {
    await symlink('/dev/zero', join(dir, 'f'));
    await assert.rejects(polled().read(), { code: 'CONFIG_INVALID', message: /no regular file/ });
    await rm(join(dir, 'f'));
    await writeFile(join(dir, 'real'), 'token');
    await symlink(join(dir, 'real'), join(dir, 'f'));
    assert.equal(await polled().read(), 'token');
  });

  it('what-is-larger-than-it-says-is-not-read-to-its-end', async () => {
    // Of size 0, as the kernel has it.
    const path = '/proc/self/status';
    await assert.rejects(new PolledFile(path, { maxBytes: 10 }).read(), { code: 'CONFIG_INVALID', message: /larger than 10/ });
    assert.match(await new PolledFile(path, { maxBytes: 65_536 }).read(), /^Name:/);
  });

  it('one-that-hangs-holds-up-neither-the-registrations-nor-other-tokens', async () => {
    const stop = new AbortController();
    const never = new Promise<never>(() => undefined);
    const other = 'spiffe://cluster.local/ns/bar/sa/other';
    await writeFile(join(dir, 'token'), 'abc');
    const two = file(entry('{ uid: 1000 }', { tokenFile: '/hangs' }), entry('{ uid: 1 }', { id: other, tokenFile: join(dir, 'token') }));
    await writeFile(join(dir, 'w.yaml'), two);
    const registrations = new WorkloadRegistrations({
      file: join(dir, 'w.yaml'),
      log: new RecordingLog().log,
      fileAt: (path, bounds) => (path === '/hangs' ? { path, read: () => never, changed: () => never } : new PolledFile(path, bounds)),
    });
    await registrations.start(stop.signal);
    assert.deepEqual(
      registrations.registrations.current?.map(({ token }) => token.current),
      [undefined, 'abc'],
    );
    const withdrawn = new Promise<readonly Registration[]>((resolve) => registrations.registrations.subscribe(resolve));
    await writeFile(join(dir, 'w.yaml'), 'workloads: []\n');
    assert.deepEqual(await withdrawn, []);
    stop.abort();
  });
});

describe('the attestor', () => {
  async function withFile(text: string): Promise<Attestor> {
    const dir = await mkdtemp(join(tmpdir(), 'hf-att-'));
    const stop = new AbortController();
    await writeFile(join(dir, 'w.yaml'), text);
    const registrations = new WorkloadRegistrations({ file: join(dir, 'w.yaml'), log: new RecordingLog().log });
    await registrations.start(stop.signal);
    stop.abort();
    await rm(dir, { recursive: true });
    return new Attestor(registrations);
  }
  const other = 'spiffe://cluster.local/ns/bar/sa/other';

  it('without-a-file-a-token-stands-alone-and-nobody-is-served-without-one', () => {
    const attestor = new Attestor(undefined);
    assert.equal(attestor.mayPresent(peer(), ID), true);
    assert.deepEqual(attestor.workloadsOf(peer()), []);
  });

  it('with-a-file-a-token-needs-a-process-that-is-registered-for-its-id', async () => {
    const attestor = await withFile(file(entry('{ uid: 1000 }'), entry('{ uid: 2000 }', { id: other })));
    assert.equal(attestor.mayPresent(peer(), ID), true);
    assert.equal(attestor.mayPresent(peer(), other), false);
    assert.equal(attestor.mayPresent(peer({ uid: 3000 }), ID), false);
    assert.equal(attestor.mayPresent(peer({ alive: () => false }), ID), false);
  });

  it('a-caller-is-each-workload-that-matches-once-in-the-order-of-the-file', async () => {
    const attestor = await withFile(
      file(entry('{ uid: 1000 }', { id: other }), entry('{ uid: 1000 }'), entry('{ cgroup: /system.slice }', { id: other })),
    );
    assert.deepEqual(
      attestor.workloadsOf(peer()).map(({ spiffeId }) => spiffeId.uri),
      [other, ID],
    );
    assert.deepEqual(attestor.workloadsOf(peer({ uid: 5, cgroup: '/a' })), []);
    assert.deepEqual(attestor.workloadsOf(peer({ alive: () => false })), [], 'whoever holds the connection of a dead process');
  });
});
