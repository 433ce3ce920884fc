// Kubelet's questions to the application, put to the sidecar instead, which asks in its stead: under STRICT the application hears no plaintext from outside.

import { validateHeaderName, validateHeaderValue } from 'node:http';
import { HandfastError, messageOf } from '../errors.ts';
import { READINESS_PORT, SIDECAR_PORTS, STATUS_PORT } from './own-parts.ts';
import type { Container, Handler, Pod, Probe } from './pod.ts';

/** What the sidecar asks of the application when kubelet asks it. */
export interface Prober extends Asked {
  /** A hook has none: it has as long as the pod has, and kubelet hangs up then. */
  readonly timeoutSeconds?: number;
}
/** One of the three. */
interface Asked {
  readonly httpGet?: {
    readonly path: string;
    readonly port: number;
    readonly scheme: 'HTTP' | 'HTTPS';
    readonly httpHeaders?: readonly { readonly name: string; readonly value: string }[];
  };
  readonly tcpSocket?: { readonly port: number };
  readonly grpc?: { readonly port: number; readonly service: string };
}
/** By the path that kubelet asks at. */
export type Probers = Readonly<Record<string, Prober>>;

export const PROBES = [
  ['livenessProbe', 'livez'],
  ['readinessProbe', 'readyz'],
  ['startupProbe', 'startupz'],
] as const;
export const HOOKS = [
  ['postStart', 'poststart'],
  ['preStop', 'prestop'],
] as const;
export const REWRITTEN: readonly string[] = ['httpGet', 'tcpSocket', 'grpc'];
const MAX_TIMEOUT_SECONDS = 86_400;

export const probePath = (container: string, probe: string) => `/app-health/${container}/${probe}`;
export const hookPath = (container: string, hook: string) => `/app-lifecycle/${container}/${hook}`;

interface Rewritten {
  readonly initContainers: readonly Container[];
  readonly containers: readonly Container[];
  readonly probers: Probers;
}

/** `sidecar` is ours. Throws OBJECT_INVALID for what it could not ask. */
export function rewriteProbes({ spec }: Pod, sidecar: 'native' | 'classic'): Rewritten {
  const probers: Record<string, Prober> = {};
  return {
    initContainers: (spec.initContainers ?? []).map((container) => {
      // Any other has ended before anybody asks it.
      if (container.restartPolicy !== 'Always') return container;
      const rewritten = rewriteContainer(container, probers);
      if (sidecar === 'classic') refuseEarly({ container, rewritten });
      return rewritten;
    }),
    containers: spec.containers.map((container) => rewriteContainer(container, probers)),
    probers,
  };
}

/** A classic sidecar starts behind all init containers: one that kubelet asks through it before that would never be up, and the pod would wait for ever. */
function refuseEarly({ container, rewritten }: { container: Container; rewritten: Container }): void {
  const early = [
    ...(['startupProbe', 'livenessProbe'] as const).filter((field) => rewritten[field] !== container[field]),
    ...(rewritten.lifecycle?.postStart === container.lifecycle?.postStart ? [] : ['lifecycle.postStart']),
  ];
  if (early.length === 0) return;
  throw new HandfastError(
    'OBJECT_INVALID',
    `init container ${container.name}: its ${early.join(', ')} would be asked before a classic sidecar is there: use a native one (annotation sidecar.istio.io/nativeSidecar: "true")`,
  );
}

function rewriteContainer(container: Container, probers: Record<string, Prober>): Container {
  const probes = PROBES.flatMap(([field, name]) => {
    const probe = container[field] ?? undefined;
    if (probe === undefined) return [];
    const path = probePath(container.name, name);
    return [[field, rewriteHandler(probe, { container, field, path, probers, timeoutSeconds: timeoutOf(probe) })] as const];
  });
  const hooks = HOOKS.flatMap(([field, name]) => {
    const hook = container.lifecycle?.[field] ?? undefined;
    if (hook === undefined) return [];
    const path = hookPath(container.name, name);
    return [[field, rewriteHandler(hook, { container, field: `lifecycle.${field}`, path, probers })] as const];
  });
  const lifecycle = hooks.length === 0 ? {} : { lifecycle: { ...container.lifecycle, ...Object.fromEntries(hooks) } };
  return { ...container, ...Object.fromEntries(probes), ...lifecycle };
}

interface Rewriting {
  readonly container: Container;
  readonly field: string;
  readonly path: string;
  readonly timeoutSeconds?: number;
  readonly probers: Record<string, Prober>;
}

/** The same probe or hook, put to the sidecar; as it was where that is not for the sidecar to ask. */
function rewriteHandler(handler: Handler, of: Rewriting): Handler {
  const asked = askedOf(handler, of);
  if (asked === undefined) return handler;
  of.probers[of.path] = { ...asked, ...(of.timeoutSeconds === undefined ? {} : { timeoutSeconds: of.timeoutSeconds }) };
  const kept = Object.fromEntries(Object.entries(handler).filter(([name]) => !REWRITTEN.includes(name)));
  return { ...kept, httpGet: { path: of.path, port: STATUS_PORT } };
}

/** Undefined for what is put to another host, or to the sidecar already. */
function askedOf({ httpGet, tcpSocket, grpc }: Handler, of: Rewriting): Asked | undefined {
  if (httpGet !== undefined && httpGet !== null) {
    const port = portToAsk(httpGet, of);
    if (port === undefined) return undefined;
    const path = httpGet.path ?? '/';
    const httpHeaders = (httpGet.httpHeaders ?? []).map((header) => checkedHeader(header, of));
    return {
      httpGet: {
        path: path.startsWith('/') ? path : `/${path}`,
        port,
        scheme: httpGet.scheme === 'HTTPS' ? 'HTTPS' : 'HTTP',
        ...(httpHeaders.length === 0 ? {} : { httpHeaders }),
      },
    };
  }
  if (tcpSocket !== undefined && tcpSocket !== null) {
    const port = portToAsk(tcpSocket, of);
    return port === undefined ? undefined : { tcpSocket: { port } };
  }
  if (grpc === undefined || grpc === null) return undefined;
  const port = portToAsk({ port: grpc.port }, of);
  return port === undefined ? undefined : { grpc: { port, service: grpc.service ?? '' } };
}

function portToAsk({ port, host }: { port: number | string; host?: string | null | undefined }, of: Rewriting): number | undefined {
  if ((host ?? '') !== '') return undefined;
  const number = portOf(port, of);
  if (number === STATUS_PORT || number === READINESS_PORT) return undefined;
  if (!SIDECAR_PORTS.includes(number)) return number;
  throw refused(of, `asks port ${number}, which is the sidecar's: ask a port of the application`);
}

/** As kubelet finds it: a name is that of one of the container's ports, or else a number in quotes. */
function portOf(given: number | string, of: Rewriting): number {
  const named = (of.container.ports ?? []).find(({ name }) => name === given)?.containerPort;
  const number = typeof given === 'number' ? given : (named ?? (/^\d{1,5}$/.test(given) ? Number(given) : 0));
  if (number >= 1 && number <= 65_535) return number;
  throw refused(
    of,
    `asks port ${JSON.stringify(given)}, which is neither a number of a port nor the name of one of the container's: name it in its ports, or give the number`,
  );
}

/** The sidecar would not start with a header that HTTP does not know. */
function checkedHeader({ name, value }: { name: string; value: string }, of: Rewriting): { name: string; value: string } {
  try {
    validateHeaderName(name);
    validateHeaderValue(name, value);
    return { name, value };
  } catch (error) {
    throw refused(of, `has an HTTP header that cannot be sent: ${messageOf(error)}`);
  }
}

function refused({ container, field }: Rewriting, why: string): HandfastError {
  return new HandfastError('OBJECT_INVALID', `container ${container.name}: ${field} ${why}`);
}

function timeoutOf({ timeoutSeconds }: Probe): number {
  return Math.min(Math.max(1, timeoutSeconds ?? 1), MAX_TIMEOUT_SECONDS);
}
