// The init container that redirects the pod's traffic: root for a moment, with the two capabilities that takes and nothing else.

import type { InjectorConfig } from './config.ts';
import { literal } from './literal.ts';
import { INIT_CONTAINER } from './own-parts.ts';
import type { Container } from './pod.ts';
import type { Settings } from './settings.ts';
import { NO_API_MOUNT } from './volumes.ts';

export function initContainer({ settings, config }: { settings: Settings; config: InjectorConfig }): Container {
  return {
    name: INIT_CONTAINER,
    image: settings.image,
    imagePullPolicy: config.imagePullPolicy,
    args: ['iptables', 'apply', ...settings.capture].map(literal),
    resources: { requests: { cpu: '10m', memory: '32Mi' }, limits: { cpu: '2000m', memory: '256Mi' } },
    securityContext: {
      runAsUser: 0,
      runAsGroup: 0,
      // The pod's own securityContext may say otherwise.
      runAsNonRoot: false,
      allowPrivilegeEscalation: false,
      privileged: false,
      capabilities: { drop: ['ALL'], add: ['NET_ADMIN', 'NET_RAW'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumeMounts: [NO_API_MOUNT],
  };
}
