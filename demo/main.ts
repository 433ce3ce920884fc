// make demo: a two-namespace mesh on one machine, shown at work and checked. Ends by itself and takes everything it made with it.

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { chmod, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { messageOf } from '../src/errors.ts';
import { eventually, type LogRecord, Mesh, type MeshPod } from '../test/support/local-mesh.ts';
import { requireNamespaces } from '../test/support/namespaces.ts';
import { Checks } from './checks.ts';
import { findKeys } from './keys.ts';
import { readWire } from './wire.ts';

const NAMESPACES = ['foo', 'bar', 'legacy'] as const;
const MESHED = ['foo', 'bar'];
const LOAD_SECONDS = 24;
const SHORT_CONNECTIONS = 20;
const LONG_CONNECTIONS = 5;
const TUNNELLED_CONNECTIONS = 50;
const TUNNELLED_SECONDS = 0.5;
/** One, and those that certificates renewed meanwhile, at either end, may bring. */
const MAX_SESSIONS = 3;
const TUNNEL_PORT = 15008;

interface Results {
  matrix: Record<string, Record<string, number>>;
  wire: { packets: number; plaintextLeaks: number; legacyMarkers: number };
  tunnel: { connections: number; sessions: number };
  rotation: { rotations: number; requests: number; failures: number; serialsSeen: number };
  impostor: { status: number; reason: string };
  keysOnDisk: number;
  checks: number;
  failed: number;
  seconds: number;
}

const checks = new Checks();
const results: Results = {
  matrix: {},
  wire: { packets: 0, plaintextLeaks: -1, legacyMarkers: 0 },
  tunnel: { connections: 0, sessions: -1 },
  rotation: { rotations: 0, requests: 0, failures: -1, serialsSeen: 0 },
  impostor: { status: -1, reason: '' },
  keysOnDisk: -1,
  checks: 0,
  failed: 0,
  seconds: 0,
};

const peerAuthentication = (name: string, namespace: string, spec: object) => ({
  apiVersion: 'security.istio.io/v1',
  kind: 'PeerAuthentication',
  metadata: { name, namespace },
  spec,
});
const PERMISSIVE = peerAuthentication('default', 'istio-system', { mtls: { mode: 'PERMISSIVE' } });
const STRICT_HTTPBIN_BAR = peerAuthentication('httpbin', 'bar', {
  selector: { matchLabels: { app: 'httpbin' } },
  mtls: { mode: 'STRICT' },
});
const STRICT = peerAuthentication('default', 'istio-system', { mtls: { mode: 'STRICT' } });

async function demo(mesh: Mesh): Promise<void> {
  await startMesh(mesh);
  const steps: readonly (() => Promise<void>)[] = [
    () => showMatrix(mesh, 'PERMISSIVE', () => false),
    () => showWire(mesh),
    () => showTunnel(mesh),
    () => showVerdict(mesh),
    () => switchTo(mesh, { objects: [PERMISSIVE, STRICT_HTTPBIN_BAR], witness: 'httpbin.bar', label: 'STRICT on httpbin.bar alone' }),
    () => showMatrix(mesh, 'STRICT:httpbin.bar', (from, to) => from === 'sleep.legacy' && to === 'httpbin.bar'),
    () => switchTo(mesh, { objects: [STRICT], witness: 'httpbin.foo', label: 'STRICT for the whole mesh' }),
    () => showMatrix(mesh, 'STRICT', (from, to) => from === 'sleep.legacy' && to !== 'httpbin.legacy'),
    () => showReason(mesh),
    () => showRequests(mesh),
    () => showRotation(mesh),
    () => showImpostor(mesh),
    () => showKeys(mesh),
  ];
  // A step that breaks is a failed check; the others still have their say.
  for (const step of steps) await step().catch((error) => checks.check('the step ran to its end', false, messageOf(error)));
}

async function startMesh(mesh: Mesh): Promise<void> {
  checks.heading('Starting: two meshed namespaces, foo and bar, and legacy without sidecars');
  for (const namespace of NAMESPACES) {
    const meshed = MESHED.includes(namespace);
    await mesh.addPod({ name: 'sleep', namespace, meshed });
    await mesh.addPod({ name: 'httpbin', namespace, meshed });
  }
  await mesh.addPod({ name: 'payments', namespace: 'bar', meshed: true });
  await mesh.addPod({ name: 'api', namespace: 'foo', meshed: true, http: true });
  await mesh.configureRegistry();
  await mesh.configure('policy.yaml', [PERMISSIVE]);
  await mesh.startControlPlane();
  checks.say('CA, control and agent are up; sidecars start behind iptables, as uid 1337');
  const pods = [...mesh.pods.values()];
  const sidecars = pods.filter(({ meshed, name }) => meshed && name !== 'payments');
  await Promise.all([
    ...sidecars.map((pod) => mesh.startSidecar(pod)),
    ...pods.filter(({ name }) => name === 'httpbin' || name === 'api').map((pod) => mesh.startApplication(pod, 'httpbin.ts', ['8000'])),
  ]);
  await Promise.all(sidecars.map((pod) => mesh.awaitReady(pod)));
  checks.say(`${sidecars.length} sidecars ready`);
}

/** Every sleep asks every httpbin. `refused` says which pairs this mode must refuse. */
async function showMatrix(mesh: Mesh, mode: string, refused: (from: string, to: string) => boolean): Promise<void> {
  checks.heading(`Who reaches whom under ${mode}`);
  const statuses: Record<string, number> = {};
  for (const source of NAMESPACES) {
    for (const target of NAMESPACES) {
      const [from, to] = [`sleep.${source}`, `httpbin.${target}`];
      const status = await mesh.request(mesh.pod(from), to);
      statuses[`${from}->${to}`] = status;
      const expected = refused(from, to) ? 0 : 200;
      checks.check(
        `${from} to ${to}: ${status === 0 ? 'refused' : status}`,
        status === expected,
        status === expected ? '' : `expected ${expected}`,
      );
    }
  }
  results.matrix[mode] = statuses;
}

/** Edits the policy file and waits until a legacy client is refused by the witness. */
async function switchTo(mesh: Mesh, to: { objects: readonly object[]; witness: string; label: string }): Promise<void> {
  checks.heading(`Editing policy.yaml: ${to.label}`);
  const legacy = mesh.pod('sleep.legacy');
  await mesh.configure('policy.yaml', to.objects);
  const tookMs = await eventually(`${to.witness} to refuse plaintext`, async () => (await mesh.request(legacy, to.witness)) === 0);
  checks.say(`in force ${tookMs} ms after the file was saved; nothing was restarted`);
}

/** What an operator asks before the switch is turned: by the server's own records, who would break? The matrices that follow show whether it was right. */
async function showVerdict(mesh: Mesh): Promise<void> {
  checks.heading('Before the switch: handfast strict-check -n bar httpbin');
  const question = ['strict-check', '-n', 'bar', 'httpbin', '--min-observed', '0s'];
  let answer = await mesh.operator(...question);
  await eventually('the ledger to name the offender', async () => {
    answer = await mesh.operator(...question);
    return answer.code === 1;
  });
  for (const line of answer.stdout.trimEnd().split('\n')) checks.say(line);
  const { stdout } = await mesh.operator(...question, '-o', 'json');
  const { offenders } = JSON.parse(stdout) as { offenders: { client: string }[] };
  const named = offenders.map(({ client }) => client);
  checks.check('exactly the caller without a sidecar is named', named.join() === 'legacy/sleep', named.join(' '));
  const proposed = join(mesh.dir, 'tmp', 'proposed.json');
  await writeFile(proposed, JSON.stringify(STRICT_HTTPBIN_BAR));
  const replay = await mesh.operator('policy', 'replay', '-f', proposed, '-o', 'json');
  const { inbound } = JSON.parse(replay.stdout) as { inbound: { client: string; change: string }[] };
  checks.check(
    'and a replay of the proposed policy refuses the same one',
    replay.code === 1 && inbound.every(({ client, change }) => client === 'legacy/sleep' && change === 'would refuse'),
    inbound.map(({ client, change }) => `${change} ${client}`).join(', '),
  );
}

async function showReason(mesh: Mesh): Promise<void> {
  const refusals = await findRecords(mesh, 'httpbin.bar', (record) => record.code === 'PLAINTEXT_UNDER_STRICT');
  checks.check('the refusal says why', refusals.length > 0, String(refusals[0]?.reason ?? 'no record'));
}

async function showWire(mesh: Mesh): Promise<void> {
  checks.heading('On the wire, at the door of httpbin.bar');
  const server = mesh.pod('httpbin.bar');
  const marker = `handfast-demo-marker-${randomBytes(8).toString('hex')}`;
  const capture = async (name: string, from: MeshPod) => {
    const file = join(mesh.dir, 'tmp', `${name}.pcap`);
    const filter = `tcp port 8000 or tcp port ${TUNNEL_PORT}`;
    const tcpdump = server.pod.spawn(['tcpdump', '-i', 'eth0', '-U', '-w', file, '-s', '0', '-Z', 'root', filter], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    await new Promise<void>((resolve, reject) => {
      tcpdump.stderr?.on('data', (text) => String(text).includes('listening on') && resolve());
      tcpdump.once('close', () => reject(new Error('tcpdump did not start')));
    });
    const status = await mesh.request(from, 'httpbin.bar', `x-marker: ${marker}`);
    // The connection's last packets follow the answer. In a tunnel that is open it needs neither a handshake of TCP's nor one of TLS's.
    await eventually('the capture to hold the connection', () => {
      const { packets, flows } = readWire(readFileSync(file), marker);
      return packets >= 4 && flows >= 2;
    });
    tcpdump.kill('SIGINT');
    await once(tcpdump, 'close');
    return { status, ...readWire(readFileSync(file), marker) };
  };
  const meshed = await capture('mesh', mesh.pod('sleep.foo'));
  const legacy = await capture('legacy', mesh.pod('sleep.legacy'));
  results.wire = { packets: meshed.packets, plaintextLeaks: meshed.plaintextFlows + meshed.markers, legacyMarkers: legacy.markers };
  checks.check(
    'sleep.foo to httpbin.bar is TLS only',
    meshed.status === 200 && meshed.flows >= 2 && results.wire.plaintextLeaks === 0,
    `${meshed.packets} packets, ${meshed.flows} flows, marker seen ${meshed.markers} times`,
  );
  checks.check(
    'and all of it is a tunnel, to port 15008',
    meshed.ports.join() === String(TUNNEL_PORT),
    `ports: ${meshed.ports.join(', ')}`,
  );
  checks.check(
    'the same detector reads legacy traffic',
    legacy.status === 200 && legacy.markers > 0,
    `marker seen ${legacy.markers} times`,
  );
}

async function showTunnel(mesh: Mesh): Promise<void> {
  checks.heading(`${TUNNELLED_CONNECTIONS} connections at a time from sleep.foo to httpbin.bar`);
  const [client, server] = [mesh.pod('sleep.foo'), 'httpbin.bar'];
  const before = new Date().toISOString();
  const args = [`http://${mesh.addressOf(server, client)}:8000/get`, TUNNELLED_SECONDS, 0, TUNNELLED_CONNECTIONS].map(String);
  const load = JSON.parse(await mesh.startApplication(client, 'load.ts', args));
  const records = await findRecords(
    mesh,
    server,
    (record) => String(record.time) >= before && record.direction === 'inbound' && record.decision === 'allowed',
  );
  const tunnelled = records.filter(({ transport, tunnel }) => transport === 'mtls' && tunnel === 'HBONE');
  // Each record has the address that its TLS session came from.
  const sessions = new Set(tunnelled.map((record) => (record.downstream as Record<string, unknown>).address));
  results.tunnel = { connections: tunnelled.length, sessions: sessions.size };
  checks.check(
    'all of them went through HBONE tunnels, each open the whole time',
    load.failures === 0 && tunnelled.length === TUNNELLED_CONNECTIONS && load.longLived.length === TUNNELLED_CONNECTIONS,
    `${tunnelled.length} records, ${load.requests} requests, ${load.failures} failures`,
  );
  checks.check(
    `they shared ${sessions.size} TLS session${sessions.size === 1 ? '' : 's'}`,
    sessions.size >= 1 && sessions.size <= MAX_SESSIONS,
    'more than one where a certificate was renewed as they began',
  );
}

/** A port that is declared HTTP: each request is judged, and the application hears who called. */
async function showRequests(mesh: Mesh): Promise<void> {
  checks.heading('Reading the requests of api.foo, whose port is declared HTTP');
  const client = mesh.pod('sleep.bar');
  const { status, headers } = await mesh.ask(client, 'api.foo', '/get', '-H', 'x-forwarded-client-cert: By=forged');
  const heard = headers['x-forwarded-client-cert'] ?? '';
  checks.check(
    'the application hears who called, and nothing that was forged',
    status === 200 && heard.endsWith('URI=spiffe://cluster.local/ns/bar/sa/sleep') && !heard.includes('forged'),
    heard,
  );
  const policy = (name: string, spec: object) => ({
    apiVersion: 'security.istio.io/v1',
    kind: 'AuthorizationPolicy',
    metadata: { name, namespace: 'foo' },
    spec: { selector: { matchLabels: { app: 'api' } }, ...spec },
  });
  const reading = { action: 'ALLOW', rules: [{ to: [{ operation: { methods: ['GET'] } }] }] };
  const noAdmin = { action: 'DENY', rules: [{ to: [{ operation: { paths: ['/admin', '/admin/*'] } }] }] };
  await mesh.configure('requests.yaml', [policy('reading', reading), policy('no-admin', noAdmin)]);
  const statusOf = async (path: string, ...more: string[]) => (await mesh.ask(client, 'api.foo', path, ...more)).status;
  await eventually('the policies to hold', async () => (await statusOf('/get', '-X', 'POST')) === 403);
  checks.check('a POST is refused with 403, a GET is answered', (await statusOf('/get')) === 200);
  const spellings = ['/admin', '//admin', '/x/../admin', '/%61dmin', '/x/..;/admin', '/%2561dmin'];
  const statuses = await Promise.all(spellings.map((path) => statusOf(path)));
  checks.check(
    '/admin is refused however it is spelt',
    statuses.every((one) => one === 403),
    spellings.join(' '),
  );
}

async function showRotation(mesh: Mesh): Promise<void> {
  checks.heading(
    `Rotating every certificate each second, ${SHORT_CONNECTIONS + LONG_CONNECTIONS} connections at a time, for ${LOAD_SECONDS} s`,
  );
  const [client, server] = [mesh.pod('sleep.foo'), 'httpbin.bar'];
  const before = new Date().toISOString();
  const args = [`http://${mesh.addressOf(server, client)}:8000/get`, LOAD_SECONDS, SHORT_CONNECTIONS, LONG_CONNECTIONS].map(String);
  const load = JSON.parse(await mesh.startApplication(client, 'load.ts', args));
  // Each certificate that took force during the load, at the server and at the client.
  const during = (record: LogRecord) => String(record.time) >= before;
  const rotations = await findRecords(mesh, server, (record) => during(record) && record.msg === 'identity in force');
  const connections = await findRecords(
    mesh,
    server,
    (record) => during(record) && record.msg === 'connection' && record.transport === 'mtls',
  );
  const serials = new Set(connections.map((record) => (record.downstream as Record<string, unknown>).serial));
  results.rotation = { rotations: rotations.length, requests: load.requests, failures: load.failures, serialsSeen: serials.size };
  checks.check('at least 20 rotations', rotations.length >= 20, `${rotations.length} certificates at httpbin.bar`);
  checks.check('at least 1,000 requests', load.requests >= 1000, String(load.requests));
  checks.check('no request failed', load.failures === 0, load.errors.join('; '));
  checks.check(
    "the client's certificate changed before the server's eyes",
    serials.size >= 20,
    `${serials.size} serials, last ${[...serials]
      .slice(-3)
      .map((serial) => String(serial).slice(0, 8))
      .join(', ')}`,
  );
  const carried = load.longLived.filter(
    (connection: { requestsFirstHalf: number; requestsSecondHalf: number }) =>
      connection.requestsFirstHalf > 0 && connection.requestsSecondHalf > 0,
  );
  checks.check(
    'long-lived connections carried bytes before and after',
    carried.length === LONG_CONNECTIONS,
    `${carried.length} of ${LONG_CONNECTIONS}, each on one socket from the first second to the last`,
  );
}

async function showImpostor(mesh: Mesh): Promise<void> {
  checks.heading('An impostor in the place of payments.bar');
  const payments = mesh.pod('payments.bar');
  const client = mesh.pod('sleep.foo');
  const stand = async (serviceAccount: string, port: string) =>
    mesh.startApplication(payments, 'impostor.ts', [mesh.agentAddress, await mesh.token('bar', serviceAccount), payments.pod.ipv4, port]);

  const impostor = await stand('impostor', '8000');
  checks.say(`a server that proves to be ${impostor} listens at its address`);
  results.impostor.status = await mesh.request(client, 'payments.bar');
  const [refusal] = await findRecords(mesh, 'sleep.foo', (record) => record.code === 'SECURE_NAMING_MISMATCH');
  results.impostor.reason = String(refusal?.reason ?? '');
  checks.check('refused by secure naming', results.impostor.status === 0 && refusal !== undefined, results.impostor.reason);

  // The twin: the same program with the right identity, one port on, is let through; so it was the name and nothing else.
  const rightful = await stand('payments', '8001');
  const { stdout } = await client.pod.attempt(
    ['curl', '-s', '-o', '/dev/null', '-w', '%{http_code}', '-m', '5', `http://${payments.pod.ipv4}:8001/get`],
    { uid: 1000, gid: 1000 },
  );
  checks.check('the same server with the right identity is let through', stdout === '200', rightful);
}

async function showKeys(mesh: Mesh): Promise<void> {
  checks.heading('Private keys on disk');
  const planted = join(mesh.dir, 'tmp', 'planted.pem');
  await writeFile(planted, generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' }));
  const search = () => findKeys([mesh.dir], mesh.pids);
  checks.check('the search finds a key planted for it', search().includes(planted));
  await unlink(planted);
  const found = search();
  const ofTheCa = found.filter((path) => path.startsWith(join(mesh.dir, 'ca/')));
  results.keysOnDisk = found.length - ofTheCa.length;
  checks.check("no workload's key is on disk", results.keysOnDisk === 0, found.filter((path) => !ofTheCa.includes(path)).join(', '));
  checks.say(`the CA's own keys, mode 0600: ${ofTheCa.map((path) => path.slice(mesh.dir.length + 1)).join(', ')}`);
}

/** Matching records, once the sidecar has flushed its log (twice a second). */
async function findRecords(mesh: Mesh, pod: string, matches: (record: LogRecord) => boolean): Promise<LogRecord[]> {
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  return (await mesh.records(pod)).filter(matches);
}

function unavailable(): string | undefined {
  if (process.getuid?.() !== 0) return 'the demo makes network namespaces and iptables rules, which needs root: sudo make demo';
  const reason = requireNamespaces();
  return reason === false
    ? undefined
    : `the demo cannot run here: ${reason}. It needs Linux, root, and the Debian packages iptables, iproute2, curl and tcpdump`;
}

async function main(): Promise<number> {
  const problem = unavailable();
  if (problem !== undefined) {
    process.stderr.write(`${problem}\n`);
    return 1;
  }
  const dir = mkdtempSync(join(tmpdir(), 'handfast-demo-'));
  await chmod(dir, 0o755);
  let mesh: Mesh | undefined;
  const cleanUpNow = () => {
    mesh?.disposeSync();
    rmSync(dir, { recursive: true, force: true });
  };
  process.on('exit', cleanUpNow);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.prependListener(signal, () => {
      process.stdout.write('\ninterrupted: cleaning up\n');
      process.exit(130);
    });
  }
  try {
    mesh = await Mesh.create(dir, { rotateEvery: '1s', label: 'demo' });
    await demo(mesh);
  } catch (error) {
    checks.check('the mesh came up', false, messageOf(error));
  }
  await mesh?.dispose();
  process.stdout.write(checks.summary());
  return checks.failed === 0 ? 0 : 1;
}

const code = await main();
const jsonPath = process.env.DEMO_JSON;
if (jsonPath !== undefined && jsonPath !== '') {
  writeFileSync(
    jsonPath,
    `${JSON.stringify({ ...results, checks: checks.total, failed: checks.failed, seconds: checks.seconds }, null, 2)}\n`,
  );
}
process.exit(code);
