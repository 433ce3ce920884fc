// The sidecar: the data path, as uid 1337 without a capability. It meets the Pod Security level "restricted".

import { READINESS_PATH } from '../observe/readiness.ts';
import type { InjectorConfig } from './config.ts';
import { literal } from './literal.ts';
import { PROBERS_VARIABLE, PROXY_ID, READINESS_PORT, SIDECAR_CONTAINER, STATUS_PORT, TUNNEL_PORT } from './own-parts.ts';
import type { Container } from './pod.ts';
import type { Probers } from './probes.ts';
import type { Settings } from './settings.ts';
import { AGENT_SOCKET, NO_API_MOUNT, ROOTS_FILE, STATE_DIRECTORY, sidecarVolumes, TOKEN_FILE } from './volumes.ts';

interface Made {
  readonly settings: Settings;
  readonly config: InjectorConfig;
  readonly probers: Probers;
}

const READY = { path: READINESS_PATH, port: READINESS_PORT };
/** A sidecar that has no certificate after ten minutes will not have one by waiting. */
const STARTUP = { httpGet: READY, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 600 };
const WAIT = ['node', '/app/dist/main.js', 'wait', `--port=${READINESS_PORT}`, '--timeout=10m'];

export function sidecarContainer(made: Made): Container {
  const { settings, config } = made;
  return {
    name: SIDECAR_CONTAINER,
    image: settings.image,
    imagePullPolicy: config.imagePullPolicy,
    ...(settings.sidecar === 'native' ? { restartPolicy: 'Always' } : {}),
    args: argsOf(settings, config).map(literal),
    env: envOf(made.probers),
    ports: [
      { name: 'hf-tunnel', containerPort: TUNNEL_PORT, protocol: 'TCP' },
      { name: 'hf-status', containerPort: STATUS_PORT, protocol: 'TCP' },
      { name: 'hf-ready', containerPort: READINESS_PORT, protocol: 'TCP' },
    ],
    resources: settings.resources,
    ...(settings.holdApplication ? holding(settings.sidecar) : {}),
    readinessProbe: { httpGet: READY, timeoutSeconds: 3, ...settings.readiness },
    securityContext: {
      runAsUser: PROXY_ID,
      runAsGroup: PROXY_ID,
      runAsNonRoot: true,
      allowPrivilegeEscalation: false,
      privileged: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
      seccompProfile: { type: 'RuntimeDefault' },
    },
    volumeMounts: [
      ...sidecarVolumes(config, settings.identity).map(({ volume, mount }) => ({ name: volume.name, ...mount })),
      NO_API_MOUNT,
    ],
  };
}

function argsOf(settings: Settings, { inPod }: InjectorConfig): string[] {
  return [
    'proxy',
    `--agent=${AGENT_SOCKET}`,
    `--token-file=${TOKEN_FILE}`,
    ...(settings.identity === 'in-pod' && inPod !== undefined
      ? [
          `--ca=${inPod.ca}`,
          `--control=${inPod.control.join(',')}`,
          `--trust-domain=${inPod.trustDomain}`,
          `--trust-bundle=${ROOTS_FILE}`,
          `--state=${STATE_DIRECTORY}`,
        ]
      : []),
    `--log-level=${settings.logLevel}`,
    ...(settings.forwardClientCert === undefined ? [] : [`--forward-client-cert=${settings.forwardClientCert}`]),
    ...settings.secrets.map((key) => `--secret=${key}`),
    ...(settings.workers > 1 ? [`--workers=${settings.workers}`] : []),
  ];
}

function envOf(probers: Probers): NonNullable<Container['env']> {
  const field = (name: string, fieldPath: string) => ({ name, valueFrom: { fieldRef: { fieldPath } } });
  return [
    field('POD_NAME', 'metadata.name'),
    field('POD_NAMESPACE', 'metadata.namespace'),
    field('POD_IP', 'status.podIP'),
    field('NODE_NAME', 'spec.nodeName'),
    ...(Object.keys(probers).length === 0 ? [] : [{ name: PROBERS_VARIABLE, value: literal(JSON.stringify(probers)) }]),
  ];
}

/** Kubelet starts what stands behind a native sidecar when its startup probe has passed, and behind another container when its hook has ended. */
function holding(sidecar: Settings['sidecar']): object {
  return sidecar === 'native' ? { startupProbe: STARTUP } : { lifecycle: { postStart: { exec: { command: WAIT } } } };
}
