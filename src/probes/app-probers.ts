// The probes that the injector took from the application's containers, from the environment: read once, every mistake named.

import { validateHeaderName, validateHeaderValue } from 'node:http';
import { HandfastError, messageOf } from '../errors.ts';
import { isJsonObject, parseStrictObject } from '../spiffe/strict-json.ts';

export interface HttpHeader {
  readonly name: string;
  readonly value: string;
}

export interface HttpGetAction {
  readonly kind: 'httpGet';
  readonly port: number;
  /** Begins with a slash; as it goes over the wire. */
  readonly path: string;
  readonly scheme: 'HTTP' | 'HTTPS';
  readonly httpHeaders: readonly HttpHeader[];
}

export interface TcpSocketAction {
  readonly kind: 'tcpSocket';
  readonly port: number;
}

export interface GrpcAction {
  readonly kind: 'grpc';
  readonly port: number;
  readonly service: string;
}

export interface AppProber {
  readonly action: HttpGetAction | TcpSocketAction | GrpcAction;
  readonly timeoutMs: number;
}

/** By the path that kubelet asks for. */
export type AppProbers = ReadonlyMap<string, AppProber>;

const PATH =
  /^\/(app-health\/[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\/(?:livez|readyz|startupz)|app-lifecycle\/[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\/(?:poststart|prestop))$/;
const MAX_TIMEOUT_S = 86_400;
const PROBE_TIMEOUT_S = 1;
/** Kubelet waits for a hook as long as the pod has, and hangs up then; this is for when it does not. */
const HOOK_TIMEOUT_S = 3_600;

/** Throws CONFIG_INVALID with every problem, one a line. `ownPorts` are the sidecar's: asking those in the application's stead would be asking oneself. */
export function parseAppProbers(text: string, ownPorts: ReadonlySet<number>): AppProbers {
  const problems: string[] = [];
  const probers = new Map<string, AppProber>();
  for (const [path, value] of Object.entries(objectOf(text))) {
    const reading = new Reading(path, problems, ownPorts);
    if (!PATH.test(path)) {
      reading.say(
        'is no path of a probe; there are /app-health/CONTAINER/livez, readyz, startupz and /app-lifecycle/CONTAINER/poststart, prestop',
      );
      continue;
    }
    const prober = reading.prober(value);
    if (prober !== undefined) probers.set(path, prober);
  }
  if (problems.length > 0) throw new HandfastError('CONFIG_INVALID', problems.join('\n'));
  return probers;
}

function objectOf(text: string): Readonly<Record<string, unknown>> {
  try {
    return parseStrictObject(text);
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', `--app-probers: ${messageOf(cause)}`, { cause });
  }
}

/** One prober as it is read; what is wrong is said, and reading goes on. */
class Reading {
  readonly #path: string;
  readonly #problems: string[];
  readonly #ownPorts: ReadonlySet<number>;

  constructor(path: string, problems: string[], ownPorts: ReadonlySet<number>) {
    this.#path = path;
    this.#problems = problems;
    this.#ownPorts = ownPorts;
  }

  say(problem: string): void {
    this.#problems.push(`--app-probers ${JSON.stringify(this.#path)}: ${problem}`);
  }

  prober(value: unknown): AppProber | undefined {
    const before = this.#problems.length;
    const all = this.#object('', value, ['httpGet', 'tcpSocket', 'grpc', 'timeoutSeconds']);
    const kinds = (['httpGet', 'tcpSocket', 'grpc'] as const).filter((kind) => all[kind] !== undefined);
    const [kind] = kinds;
    if (kind === undefined || kinds.length > 1) {
      this.say(`one of httpGet, tcpSocket and grpc is needed, and ${kinds.length} are there`);
      return undefined;
    }
    const action = this.#action(kind, all[kind]);
    const preset = this.#path.startsWith('/app-lifecycle/') ? HOOK_TIMEOUT_S : PROBE_TIMEOUT_S;
    const timeoutS = this.#integer('timeoutSeconds', all.timeoutSeconds ?? preset, MAX_TIMEOUT_S);
    return this.#problems.length > before ? undefined : { action, timeoutMs: timeoutS * 1_000 };
  }

  #action(kind: AppProber['action']['kind'], value: unknown): AppProber['action'] {
    switch (kind) {
      case 'httpGet': {
        const { port, path, scheme, httpHeaders } = this.#object(kind, value, ['path', 'port', 'scheme', 'httpHeaders']);
        return {
          kind,
          port: this.#port(kind, port),
          path: this.#pathOf(path ?? '/'),
          scheme: this.#scheme(scheme ?? 'HTTP'),
          httpHeaders: this.#headers(httpHeaders ?? []),
        };
      }
      case 'tcpSocket':
        return { kind, port: this.#port(kind, this.#object(kind, value, ['port']).port) };
      case 'grpc': {
        const { port, service } = this.#object(kind, value, ['port', 'service']);
        return { kind, port: this.#port(kind, port), service: this.#text('grpc.service', service ?? '') };
      }
      default:
        return kind satisfies never;
    }
  }

  #object(at: string, value: unknown, accepted: readonly string[]): Readonly<Record<string, unknown>> {
    const where = at === '' ? '' : `${at} `;
    if (!isJsonObject(value)) {
      this.say(`${where}must be an object`);
      return {};
    }
    for (const name of Object.keys(value)) {
      if (!accepted.includes(name)) this.say(`${where}has an unknown field ${JSON.stringify(name)}; accepted: ${accepted.join(', ')}`);
    }
    return value;
  }

  #integer(at: string, value: unknown, max: number): number {
    if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max) return value;
    this.say(`${at} ${JSON.stringify(value) ?? 'is missing'}: a whole number from 1 to ${max} is needed`);
    return 0;
  }

  #port(kind: string, value: unknown): number {
    const port = this.#integer(`${kind}.port`, value, 65_535);
    if (this.#ownPorts.has(port)) this.say(`${kind}.port ${port} is the sidecar's own`);
    return port;
  }

  #text(at: string, value: unknown): string {
    if (typeof value === 'string' && value.isWellFormed()) return value;
    this.say(`${at} must be a text`);
    return '';
  }

  /** As kubelet has it: a slash in front, no fragment, and what may not stand in a request escaped. */
  #pathOf(value: unknown): string {
    const [path = ''] = this.#text('httpGet.path', value).split('#');
    return `${path.startsWith('/') ? '' : '/'}${path}`.replace(/[^\x21-\x7e]+/g, encodeURIComponent);
  }

  #scheme(value: unknown): 'HTTP' | 'HTTPS' {
    if (value === 'HTTP' || value === 'HTTPS') return value;
    this.say(`httpGet.scheme ${JSON.stringify(value)}: HTTP or HTTPS`);
    return 'HTTP';
  }

  #headers(value: unknown): readonly HttpHeader[] {
    if (!Array.isArray(value)) {
      this.say('httpGet.httpHeaders must be a list');
      return [];
    }
    return value.map((entry, index) => {
      const at = `httpGet.httpHeaders[${index}]`;
      const header = this.#object(at, entry, ['name', 'value']);
      const name = this.#text(`${at}.name`, header.name);
      const text = this.#text(`${at}.value`, header.value ?? '');
      try {
        validateHeaderName(name);
        validateHeaderValue(name, text);
      } catch (error) {
        this.say(`${at}: ${messageOf(error)}`);
      }
      return { name, value: text };
    });
  }
}
