// The scenarios of `bench compare`, who takes part in each, and why somebody does not.

export const scenarioNames = [
  'handshake',
  'handshake-pq',
  'new-connections',
  'keepalive-1',
  'keepalive-64',
  'keepalive-512',
  'bulk-1',
  'bulk-8',
  'idle-10000',
  'rotation',
  'cold-start',
] as const;
export type ScenarioName = (typeof scenarioNames)[number];

/** What one operation is; `cpuUs` is CPU of the proxies for one of them. */
export const operations: Readonly<Record<ScenarioName, string>> = {
  handshake: 'full mTLS handshake, serving proxy alone, X25519',
  'handshake-pq': 'full mTLS handshake, serving proxy alone, X25519MLKEM768',
  'new-connections': 'HTTP request on an application connection of its own, through the pair',
  'keepalive-1': 'HTTP request, 1 connection kept open',
  'keepalive-64': 'HTTP request, 64 connections kept open',
  'keepalive-512': 'HTTP request, 512 connections kept open',
  'bulk-1': 'MB, 1 stream',
  'bulk-8': 'MB, 8 streams',
  'idle-10000': 'idle application connection opened and held through the pair',
  rotation: 'HTTP request, 64 connections, one in 20 new, certificates replaced every second',
  'cold-start': 'start of the serving proxy until the first mTLS byte has come back',
};

export const oursNames = ['handfast', 'handfast-direct', 'handfast-http', 'handfast-workers2'] as const;
/** Ours again, in `rotation` alone: the same load, and certificates that stay. */
export const UNROTATED = 'handfast-unrotated';
export const peerNames = ['haproxy', 'nginx', 'envoy', 'envoy-hbone', 'ghostunnel', 'stunnel', 'hitch'] as const;
export type PeerName = (typeof peerNames)[number];
export type Contender = (typeof oursNames)[number] | typeof UNROTATED | PeerName;

export function isOurs(contender: Contender): boolean {
  return contender.startsWith('handfast');
}

/** Their operations are HTTP requests: where requests can be read. */
const requests: readonly ScenarioName[] = ['new-connections', 'keepalive-1', 'keepalive-64', 'keepalive-512'];
const servingOnly: readonly ScenarioName[] = ['handshake', 'handshake-pq', 'cold-start'];

/** Why this contender has no part in this scenario, whatever machine it is; undefined when it has. */
export function absence(contender: Contender, scenario: ScenarioName): string | undefined {
  if (contender === UNROTATED) return scenario === 'rotation' ? undefined : 'only compared with rotation';
  if (scenario === 'rotation' && contender !== 'handfast')
    return isOurs(contender)
      ? 'rotation is compared between handfast and handfast-unrotated'
      : 'takes its certificates from files here: a rotation would be a reload or restart each second, which it is not made for';
  if (contender === 'hitch' && !servingOnly.includes(scenario)) return 'hitch has no client side that shows a certificate: it only serves';
  if (contender === 'ghostunnel' && scenario === 'handshake-pq') return 'its source fixes the groups to X25519 and P-256';
  if (contender === 'handfast-direct' && servingOnly.includes(scenario))
    return 'the same as handfast: there is no second sidecar to tunnel from';
  if (contender === 'envoy-hbone' && scenario.startsWith('handshake')) return 'the same as envoy: a handshake does not know what follows';
  if (contender === 'handfast-http' && !requests.includes(scenario)) return 'its bytes are no HTTP requests, or none that are compared';
  if (contender === 'handfast-workers2' && scenario === 'handshake-pq')
    return 'handshake has it; the key exchange does not change what workers do';
  if (contender === 'handfast-workers2' && scenario === 'idle-10000') return 'memory is compared of one worker';
  return undefined;
}
