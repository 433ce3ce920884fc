// The sidecar's settings, from flags and the pod's environment; parsed once, frozen. The only reader of process.env in the proxy.

import { HandfastError } from '../errors.ts';
import { type FlagValues, parseFlags } from '../flags.ts';
import { logLevels } from '../observe/log.ts';
import { forwardClientCertModes } from '../policy/forward-client-cert.ts';
import { isSecretKey } from '../policy/secret-name.ts';

export const proxyFlags = {
  agent: { kind: 'text', value: 'ADDRESS', default: 'unix:/run/handfast/agent.sock', help: "gRPC address of the node agent's socket" },
  'token-file': {
    kind: 'text',
    value: 'FILE',
    default: '/var/run/secrets/tokens/handfast-token',
    help: "the workload's token, read again when it changes",
  },
  ca: {
    kind: 'text',
    value: 'HOST:PORT',
    optional: true,
    help: 'without a node agent: the CA itself, by tokens alone (the key is made here); --agent is then a socket of our own',
  },
  control: { kind: 'text', value: 'HOST:PORT[,HOST:PORT]', optional: true, help: '--ca only: control, all its replicas' },
  'trust-bundle': { kind: 'text', value: 'FILE', optional: true, help: '--ca only: the roots to begin with, PEM' },
  'trust-domain': { kind: 'text', value: 'NAME', default: 'cluster.local', help: '--ca only: the trust domain of every SPIFFE ID' },
  state: {
    kind: 'text',
    value: 'DIR',
    default: '/run/handfast/state',
    help: '--ca only: what was trusted last, over restarts; in memory, and no key',
  },
  sds: {
    kind: 'text',
    value: 'ADDRESS',
    optional: true,
    help: "another SDS server for certificates: unix:/path or host:port (default: the agent); it gets no token but --sds-token-file's",
  },
  'sds-token-file': { kind: 'text', value: 'FILE', optional: true, help: 'a token for that SDS server' },
  'sds-protocol': {
    kind: 'choice',
    choices: ['state-of-the-world', 'delta'],
    default: 'state-of-the-world',
    help: 'StreamSecrets, which every SDS server speaks, or DeltaSecrets',
  },
  'sds-svid': {
    kind: 'text',
    value: 'NAME',
    default: 'default',
    help: "the secret that holds the pod's certificate: default, or its SPIFFE ID",
  },
  'sds-bundle': {
    kind: 'text',
    value: 'NAME',
    default: 'ROOTCA',
    help: 'the secret that holds the trust bundle: ROOTCA, ALL, or spiffe://TRUST-DOMAIN',
  },
  'sds-crl': {
    kind: 'text',
    value: 'NAME|none',
    optional: true,
    help: 'the secret that holds the revocation list (default: CRL of the agent, none of another SDS server)',
  },
  'sds-server-id': { kind: 'text', value: 'SPIFFE-ID', optional: true, help: 'host:port only: whom the SDS server must prove to be' },
  'sds-tls-bundle': { kind: 'text', value: 'FILE', optional: true, help: 'host:port only: the roots that server is verified with' },
  'sds-tls-cert': { kind: 'text', value: 'FILE', optional: true, help: 'host:port only: our certificate chain for that server' },
  'sds-tls-key': { kind: 'text', value: 'FILE', optional: true, help: 'host:port only: its key' },
  'pod-name': { kind: 'text', value: 'NAME', env: 'POD_NAME', help: 'name of this pod in the registry' },
  'pod-namespace': { kind: 'text', value: 'NAMESPACE', env: 'POD_NAMESPACE', help: 'namespace of this pod' },
  'inbound-port': { kind: 'port', default: 15006, help: 'where iptables redirects inbound connections' },
  'outbound-port': { kind: 'port', default: 15001, help: 'where iptables redirects outbound connections' },
  'tunnel-port': { kind: 'port', default: 15008, help: 'where peers bring HBONE tunnels' },
  'readiness-port': { kind: 'port', default: 15021, help: 'HTTP /healthz/ready' },
  'status-port': { kind: 'port', default: 15020, help: "HTTP /metrics, /healthz/ready, /quitquitquit and the application's probes" },
  'identity-port': {
    kind: 'port',
    default: 15004,
    help: 'HTTP on loopback, for the application: JWT-SVIDs, verdicts on them, keys (docs/identity.md), and its secrets (docs/secrets.md); 0 for none',
  },
  secret: {
    kind: 'list',
    value: 'NAMESPACE/NAME',
    help: 'a secret to have at hand before the application asks for it; may be given again',
  },
  metrics: { kind: 'choice', choices: ['all', 'local'], default: 'all', help: 'who may read /metrics: everybody, or the pod itself' },
  'app-probers': {
    kind: 'text',
    value: 'JSON',
    optional: true,
    env: 'HANDFAST_APP_PROBERS',
    help: "the application's probes that --status-port answers, as the injector writes them",
  },
  'pod-ip': { kind: 'text', value: 'ADDRESS', optional: true, env: 'POD_IP', help: "the pod's address; needed with --app-probers" },
  'dial-timeout': {
    kind: 'duration',
    default: '10s',
    min: '10ms',
    max: '5m',
    help: 'for a TCP connection to an upstream; and for the agent to say who is at a new destination',
  },
  'handshake-timeout': { kind: 'duration', default: '10s', min: '10ms', max: '5m', help: 'for a TLS handshake, either side' },
  'sniff-silence': {
    kind: 'duration',
    default: '500ms',
    min: '10ms',
    max: '1m',
    help: 'PERMISSIVE: after this silence of the client, a server that speaks first may',
  },
  'half-close-timeout': {
    kind: 'duration',
    default: '1h',
    min: '100ms',
    max: '24h',
    help: 'for a half-closed or wordless connection without a byte',
  },
  'drain-timeout': { kind: 'duration', default: '10s', min: '0s', max: '1h', help: 'after SIGTERM, for open connections to finish' },
  'forward-client-cert': {
    kind: 'choice',
    choices: forwardClientCertModes,
    default: 'SANITIZE_SET',
    help: 'x-forwarded-client-cert for the application, on HTTP ports: only the peer, what a proven peer sent, both, or none',
  },
  workers: {
    kind: 'text',
    value: 'N',
    default: '1',
    help: 'threads that serve connections; 1 is the process itself',
  },
  'log-level': { kind: 'choice', choices: logLevels, default: 'info', help: 'what is logged' },
} as const;

export interface ProxyConfig extends Omit<FlagValues<typeof proxyFlags>, 'workers'> {
  readonly workers: number;
}

const MAX_WORKERS = 64;

/** Throws CONFIG_INVALID that names the flag, or HelpRequested. */
export function parseProxyConfig(argv: readonly string[]): ProxyConfig {
  const flags = parseFlags(
    argv,
    proxyFlags,
    {
      command: 'handfast proxy',
      summary: 'The sidecar: mTLS in, mTLS out, behind the redirection that `handfast iptables apply` sets up.',
    },
    process.env,
  );
  checkSecrets(flags);
  checkInPod(flags);
  return Object.freeze({ ...flags, workers: workersOf(flags.workers) });
}

const MAX_SECRETS = 32;

function checkSecrets({ secret, 'identity-port': port }: FlagValues<typeof proxyFlags>): void {
  const stray = secret.find((key) => !isSecretKey(key));
  if (stray !== undefined) throw new HandfastError('CONFIG_INVALID', `--secret ${JSON.stringify(stray)} is not accepted: NAMESPACE/NAME`);
  if (secret.length > MAX_SECRETS) throw new HandfastError('CONFIG_INVALID', `--secret: more than ${MAX_SECRETS} secrets`);
  if (secret.length > 0 && port === 0)
    throw new HandfastError('CONFIG_INVALID', '--secret needs --identity-port: that is where the application finds its secrets');
}

/** A sidecar that is its own agent is told where everybody is, and nothing of an agent's. */
function checkInPod({ ca, control, 'trust-bundle': trustBundle, sds }: FlagValues<typeof proxyFlags>): void {
  if (ca === undefined) {
    const stray = control !== undefined ? 'control' : trustBundle !== undefined ? 'trust-bundle' : undefined;
    if (stray !== undefined) throw new HandfastError('CONFIG_INVALID', `--${stray} is for a sidecar without an agent: give --ca too`);
    return;
  }
  if (control === undefined || trustBundle === undefined)
    throw new HandfastError('CONFIG_INVALID', '--ca is for a sidecar without an agent, which needs --control and --trust-bundle too');
  if (sds !== undefined) throw new HandfastError('CONFIG_INVALID', '--ca and --sds: a certificate comes from one of them');
}

function workersOf(text: string): number {
  const workers = /^\d{1,2}$/.test(text) ? Number(text) : 0;
  if (workers >= 1 && workers <= MAX_WORKERS) return workers;
  throw new HandfastError('CONFIG_INVALID', `--workers ${JSON.stringify(text)} is not accepted: a number from 1 to ${MAX_WORKERS}`);
}
