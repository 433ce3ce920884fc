// The volumes of our containers: the sidecar's token, its way to its certificates, and an empty one. Nobody else mounts them.

import type { InjectorConfig } from './config.ts';

const TOKEN_DIRECTORY = '/var/run/secrets/tokens';
const TOKEN = 'handfast-token';
const RUN_DIRECTORY = '/run/handfast';
const NO_API = 'handfast-no-api';

/** The API server gives every container the pod's token for it, but for one that mounts something there already: ours have no use for the pod's rights. */
export const NO_API_MOUNT = { name: NO_API, mountPath: '/var/run/secrets/kubernetes.io/serviceaccount', readOnly: true } as const;

export const TOKEN_FILE = `${TOKEN_DIRECTORY}/${TOKEN}`;
export const AGENT_SOCKET = `unix:${RUN_DIRECTORY}/agent.sock`;

type Volume = { readonly name: string; readonly [source: string]: unknown };

interface Mounted {
  readonly volume: Volume;
  readonly mount: { readonly mountPath: string; readonly readOnly: boolean };
}

export function sidecarVolumes(config: InjectorConfig): readonly Mounted[] {
  const token = {
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
  return [
    token,
    {
      // The directory, not the socket: an agent that starts anew makes a new one.
      volume: { name: 'handfast-agent', hostPath: { path: config.agentSocketDirectory, type: 'Directory' } },
      mount: { mountPath: RUN_DIRECTORY, readOnly: true },
    },
  ];
}

/** All that is put into a pod, in the order of the pod's volumes. In memory, so that it keeps no node from being drained. */
export function ownVolumes(config: InjectorConfig): readonly Volume[] {
  return [...sidecarVolumes(config).map(({ volume }) => volume), { name: NO_API, emptyDir: { medium: 'Memory', sizeLimit: '64Ki' } }];
}
