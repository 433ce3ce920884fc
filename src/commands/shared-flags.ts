// Flags that several roles share, spelled once.

import { DEFAULT_AUDIENCE } from '../ca/local-token.ts';
import { logLevels } from '../observe/log.ts';

export const caFlags = {
  state: { kind: 'text', value: 'DIR', default: '/var/lib/handfast/ca', help: "where the CA's keys are kept (0600), made on first start" },
  'trust-domain': { kind: 'text', value: 'NAME', default: 'cluster.local', help: 'the trust domain of every SPIFFE ID' },
  'svid-ttl': { kind: 'duration', default: '24h', min: '10s', max: '24h', help: 'lifetime of the certificates issued' },
  audience: { kind: 'text', value: 'AUDIENCE', default: DEFAULT_AUDIENCE, help: 'the audience that tokens must be made for' },
} as const;

export const configFlags = {
  config: { kind: 'text', value: 'DIR', help: 'directory of YAML: registry and policy, watched (docs/configuration.md)' },
} as const;

export const rotationFlags = {
  'rotate-every': {
    kind: 'duration',
    optional: true,
    min: '100ms',
    max: '24h',
    help: 'renew certificates this often whatever their lifetime (default: at half life)',
  },
} as const;

export const runFlags = {
  'run-dir': {
    kind: 'text',
    value: 'DIR',
    default: '/run/handfast',
    help: 'where the sockets are: agent.sock for workloads, ca.sock and control.sock for root',
  },
} as const;

export const logFlags = { 'log-level': { kind: 'choice', choices: logLevels, default: 'info', help: 'what is logged' } } as const;
