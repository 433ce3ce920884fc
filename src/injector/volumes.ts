// The volumes of our containers: the sidecar's token, its way to its certificates, and an empty one. Nobody else mounts them.

import type { InjectorConfig } from './config.ts';
import { ROOTS } from './own-parts.ts';
import type { Settings } from './settings.ts';

const TOKEN_DIRECTORY = '/var/run/secrets/tokens';
const TOKEN = 'handfast-token';
const RUN_DIRECTORY = '/run/handfast';
const NO_API = 'handfast-no-api';

/** The API server gives every container the pod's token for it, but for one that mounts something there already: ours have no use for the pod's rights. */
export const NO_API_MOUNT = { name: NO_API, mountPath: '/var/run/secrets/kubernetes.io/serviceaccount', readOnly: true } as const;

export const TOKEN_FILE = `${TOKEN_DIRECTORY}/${TOKEN}`;
export const AGENT_SOCKET = `unix:${RUN_DIRECTORY}/agent.sock`;
const ROOTS_DIRECTORY = '/var/run/secrets/handfast/roots';
export const ROOTS_FILE = `${ROOTS_DIRECTORY}/root.pem`;
/** Of a sidecar without an agent: what it trusted last, over a restart of its container. */
export const STATE_DIRECTORY = `${RUN_DIRECTORY}/state`;

type Volume = { readonly name: string; readonly [source: string]: unknown };

interface Mounted {
  readonly volume: Volume;
  readonly mount: { readonly mountPath: string; readonly readOnly?: true };
}

export function sidecarVolumes(config: InjectorConfig, identity: Settings['identity']): readonly Mounted[] {
  const token: Mounted = {
    volume: {
      name: TOKEN,
      projected: {
        sources: [
          { serviceAccountToken: { audience: config.tokenAudience, expirationSeconds: config.tokenExpirationSeconds, path: TOKEN } },
        ],
      },
    },
    mount: { mountPath: TOKEN_DIRECTORY, readOnly: true },
  };
  if (identity === 'in-pod') return [token, ROOTS_VOLUME, RUN_VOLUME];
  return [
    token,
    {
      // The directory, not the socket: an agent that starts anew makes a new one.
      volume: { name: 'handfast-agent', hostPath: { path: config.agentSocketDirectory, type: 'Directory' } },
      mount: { mountPath: RUN_DIRECTORY, readOnly: true },
    },
  ];
}

/** A file of the pod's own annotation: whoever may change that may change the pod. */
const ROOTS_VOLUME: Mounted = {
  volume: {
    name: 'handfast-roots',
    projected: {
      sources: [{ downwardAPI: { items: [{ path: 'root.pem', fieldRef: { fieldPath: `metadata.annotations['${ROOTS}']` } }] } }],
    },
  },
  mount: { mountPath: ROOTS_DIRECTORY, readOnly: true },
};
/** In memory: sockets, and no key. */
const RUN_VOLUME: Mounted = {
  volume: { name: 'handfast-run', emptyDir: { medium: 'Memory', sizeLimit: '4Mi' } },
  // An API server says nothing where something may be written.
  mount: { mountPath: RUN_DIRECTORY },
};

/** All that is put into a pod, in the order of the pod's volumes. In memory, so that it keeps no node from being drained. */
export function ownVolumes(config: InjectorConfig, identity: Settings['identity']): readonly Volume[] {
  return [
    ...sidecarVolumes(config, identity).map(({ volume }) => volume),
    { name: NO_API, emptyDir: { medium: 'Memory', sizeLimit: '64Ki' } },
  ];
}
