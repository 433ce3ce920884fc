// handfast ca: the certificate authority alone.

import { startCa } from '../ca/ca.ts';
import { parseFlags } from '../flags.ts';
import { openLog } from '../observe/log.ts';
import { parseTrustDomain } from '../spiffe/spiffe-id.ts';
import { aborted } from './aborted.ts';
import { kubeFlags } from './kube-flags.ts';
import { nodeAccountsOf, workloadProvers } from './provers.ts';
import { publishedBundle } from './published-bundle.ts';
import { caFlags, listenFlags, logFlags, parseDnsNames, parseJwtIssuer, parseListen, proverFlags } from './shared-flags.ts';

const flags = {
  ...caFlags,
  ...proverFlags,
  socket: { kind: 'text', value: 'PATH', default: '/run/handfast/ca.sock', help: 'unix socket for the agent of this machine' },
  'operator-socket': {
    kind: 'text',
    value: 'PATH',
    default: '/run/handfast/ca-operator.sock',
    help: 'unix socket for revocation, root rotation and join tokens; root alone',
  },
  ...listenFlags,
  'dns-name': {
    kind: 'text',
    value: 'NAMES',
    optional: true,
    help: '--listen only: DNS names for our certificate, comma-separated, for callers that know the CA by name (Istio: istiod.istio-system.svc)',
  },
  'node-ttl': {
    kind: 'duration',
    default: '72h',
    min: '10s',
    max: '720h',
    help: "lifetime of a node's certificate: away for longer, it must join again",
  },
  'tokens-alone': {
    kind: 'switch',
    help: "give certificates to whoever has a workload's token, not to joined nodes alone (for Istio's agents and ztunnel)",
  },
  'publish-bundle': {
    kind: 'text',
    value: 'NAMESPACE/NAME',
    optional: true,
    help: 'keep the roots in this ConfigMap, key root.pem: what agents and control of a cluster begin with',
  },
  ...kubeFlags,
  ...logFlags,
} as const;

export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = parseFlags(argv, flags, {
    command: 'handfast ca',
    summary: 'Proves tokens and signs certificates for the workloads that hold them.',
  });
  const { log, close } = openLog({ role: 'ca', level: config['log-level'] });
  let published: ReturnType<typeof publishedBundle>;
  try {
    published = publishedBundle(config, { env: process.env, log });
    const ca = await startCa({
      stateDir: config.state,
      socket: config.socket,
      operatorSocket: config['operator-socket'],
      ...(config.listen === undefined ? {} : { listen: parseListen(config.listen) }),
      ...(config['dns-name'] === undefined ? {} : { dnsNames: parseDnsNames(config['dns-name']) }),
      trustDomain: parseTrustDomain(config['trust-domain']),
      svidTtlMs: config['svid-ttl'],
      nodeTtlMs: config['node-ttl'],
      jwtTtlMs: config['jwt-ttl'],
      jwtIssuer: parseJwtIssuer(config['jwt-issuer']),
      audience: config.audience,
      prover: workloadProvers(config, { log, now: Date.now }),
      tokensAlone: config['tokens-alone'],
      nodeAccounts: nodeAccountsOf(config, parseTrustDomain(config['trust-domain'])),
      onBundle: published?.replace,
      log,
      now: Date.now,
    });
    await aborted(signal);
    await ca.stop();
    return 0;
  } finally {
    await published?.stop();
    close();
  }
}
