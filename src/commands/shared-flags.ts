// Flags that several roles share, spelled once.

import { DEFAULT_AUDIENCE } from '../ca/local-token.ts';
import type { SecretsFrom, SecretsOptions } from '../control/secrets/start-secrets.ts';
import { HandfastError } from '../errors.ts';
import type { FlagValues } from '../flags.ts';
import { caKinds } from '../node/mesh-node.ts';
import { logLevels } from '../observe/log.ts';

export const trustDomainFlags = {
  'trust-domain': { kind: 'text', value: 'NAME', default: 'cluster.local', help: 'the trust domain of every SPIFFE ID' },
} as const;

export const caFlags = {
  state: {
    kind: 'text',
    value: 'DIR',
    default: '/var/lib/handfast/ca',
    help: "where the CA's keys and ledger are kept (0600), made on first start",
  },
  ...trustDomainFlags,
  'svid-ttl': { kind: 'duration', default: '24h', min: '10s', max: '24h', help: 'lifetime of the certificates issued' },
  'jwt-ttl': { kind: 'duration', default: '5m', min: '10s', max: '1h', help: 'lifetime of the JWT-SVIDs issued' },
  'jwt-issuer': {
    kind: 'text',
    value: 'URL',
    optional: true,
    help: 'the iss of JWT-SVIDs, an https URL where OIDC relying parties find the keys (default: no iss)',
  },
  audience: { kind: 'text', value: 'AUDIENCE', default: DEFAULT_AUDIENCE, help: 'the audience that tokens must be made for' },
} as const;

/** How workloads prove themselves, beside tokens of `handfast token create`. */
export const proverFlags = {
  'token-review': {
    kind: 'text',
    value: 'URL',
    optional: true,
    help: 'prove Kubernetes service account tokens by TokenReview at this API server, such as https://kubernetes.default.svc',
  },
  'token-review-ca': {
    kind: 'text',
    value: 'FILE',
    default: '/var/run/secrets/kubernetes.io/serviceaccount/ca.crt',
    help: "roots of that API server's certificate",
  },
  'token-review-token': {
    kind: 'text',
    value: 'FILE',
    default: '/var/run/secrets/kubernetes.io/serviceaccount/token',
    help: 'our own token for that API server, read again when it changes',
  },
  'node-account': {
    kind: 'text',
    value: 'NAMESPACE/NAME',
    optional: true,
    help: '--token-review only: agents join by a token of this service account, made for the audience handfast-node, as the node that their pod runs on',
  },
  'control-account': {
    kind: 'text',
    value: 'NAMESPACE/NAME',
    optional: true,
    help: '--node-account only: control joins by a token of this one',
  },
  'oidc-issuer': { kind: 'text', value: 'URL', optional: true, help: 'prove tokens of this OIDC issuer by its published keys' },
  'oidc-jwks': {
    kind: 'text',
    value: 'FILE',
    optional: true,
    help: 'the keys of --oidc-issuer from a file instead of its discovery document',
  },
} as const;

export const configFlags = {
  config: { kind: 'text', value: 'DIR', help: 'directory of YAML: registry and policy, watched (docs/configuration.md)' },
} as const;

export const secretFlags = {
  'secrets-dir': {
    kind: 'text',
    value: 'DIR',
    optional: true,
    help: "folder of YAML: secrets and who may receive them, watched; root's alone, mode 0700 (docs/secrets.md)",
  },
  'audit-log': {
    kind: 'text',
    value: 'FILE',
    optional: true,
    help: 'who was given which secret, who was refused, what was taken back: JSON lines, appended (0600); without it in the log alone',
  },
} as const;

/** Throws CONFIG_INVALID for records of what there is not. */
export function secretsOf(
  { 'audit-log': auditLog }: FlagValues<typeof secretFlags>,
  from: SecretsFrom | undefined,
): SecretsOptions | undefined {
  if (from !== undefined) return { from, auditLog };
  if (auditLog === undefined) return undefined;
  throw new HandfastError(
    'CONFIG_INVALID',
    '--audit-log is a record of secrets, and there are none: give --secrets-dir DIR (on Kubernetes --secrets)',
  );
}

export const rotationFlags = {
  'rotate-every': {
    kind: 'duration',
    optional: true,
    min: '100ms',
    max: '24h',
    help: 'renew certificates this often whatever their lifetime (default: at half life)',
  },
} as const;

export const workloadFlags = {
  workloads: {
    kind: 'text',
    value: 'FILE',
    optional: true,
    help: 'YAML: which local process may be which workload; needed by the Workload API, and then asked of every token too (docs/identity.md)',
  },
} as const;

/** How a node reaches the CA, and proves itself where that is not on this machine. */
export const nodeFlags = {
  ca: { kind: 'text', value: 'ADDRESS', default: 'unix:/run/handfast/ca.sock', help: 'gRPC address of the CA: unix:/path or host:port' },
  'ca-kind': { kind: 'choice', choices: caKinds, default: 'handfast', help: "istio: Istio's CA, by tokens alone" },
  'ca-server-name': {
    kind: 'text',
    value: 'DNS-NAME',
    optional: true,
    help: "the name in the certificate of Istio's CA (default: the host of --ca)",
  },
  'trust-bundle': { kind: 'text', value: 'FILE', optional: true, help: 'host:port only: the roots to begin with, PEM' },
  'join-token-file': {
    kind: 'text',
    value: 'FILE',
    optional: true,
    help: 'host:port only: a token of `handfast join-token create`, for the first start',
  },
} as const;

export const runFlags = {
  'run-dir': {
    kind: 'text',
    value: 'DIR',
    default: '/run/handfast',
    help: 'where the sockets are: agent.sock and workload.sock for workloads, the others for root',
  },
} as const;

export const listenFlags = {
  listen: { kind: 'text', value: 'HOST:PORT', optional: true, help: 'also serve nodes elsewhere, by mutual TLS, such as 0.0.0.0:15012' },
} as const;

export const logFlags = { 'log-level': { kind: 'choice', choices: logLevels, default: 'info', help: 'what is logged' } } as const;

/** The issuer as it stands in tokens: compared letter by letter, so there is one way to write it. Throws CONFIG_INVALID. */
export function parseJwtIssuer(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const plain =
    url !== undefined && url.protocol === 'https:' && url.username === '' && url.password === '' && url.search === '' && url.hash === '';
  if (url !== undefined && plain && !text.endsWith('/') && text.length <= 512 && (url.href === text || url.href === `${text}/`))
    return text;
  throw new HandfastError(
    'CONFIG_INVALID',
    `--jwt-issuer ${JSON.stringify(text)} is not accepted: an https URL without query, fragment and slash at its end, such as https://identity.example`,
  );
}

/** Throws CONFIG_INVALID. */
export function parseListen(text: string, flag = 'listen'): { host: string; port: number } {
  const [, host, port] = /^(\[[0-9a-f:.]+\]|[^:\s]+):(\d{1,5})$/i.exec(text) ?? [];
  if (host === undefined || port === undefined || Number(port) > 65535)
    throw new HandfastError('CONFIG_INVALID', `--${flag} ${JSON.stringify(text)} is not accepted: HOST:PORT, such as 0.0.0.0:15012`);
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) };
}

/** Throws CONFIG_INVALID. */
export function parseDnsNames(text: string): string[] {
  return text.split(',').map((name) => {
    if (/^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/.test(name)) return name;
    throw new HandfastError(
      'CONFIG_INVALID',
      `--dns-name ${JSON.stringify(name)} is not accepted: DNS names in lower case, comma-separated`,
    );
  });
}

/** What a node is started with. */
export function nodeOptions(config: FlagValues<typeof nodeFlags & typeof trustDomainFlags>) {
  return {
    ca: config.ca,
    caKind: config['ca-kind'],
    caServerName: config['ca-server-name'],
    trustBundleFile: config['trust-bundle'],
    joinTokenFile: config['join-token-file'],
  };
}
