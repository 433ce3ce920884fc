// Which ports speak HTTP/1.1, so that their requests may be read: by the words that Kubernetes and Istio have for it
// (https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/).

/** On a pod: the ports whose requests are read, separated by commas. Nothing else that declares ports counts then; an empty one means none. */
export const HTTP_PORTS_ANNOTATION = 'handfast.io/http-ports';

/** Istio's protocols: a port is named after one, alone or with a hyphen and more. */
const PROTOCOLS = [
  'http',
  'http2',
  'https',
  'grpc',
  'grpc-web',
  'h2c',
  'hbone',
  'tcp',
  'tls',
  'udp',
  'mongo',
  'mysql',
  'redis',
  'ws',
  'wss',
];
const HTTP_1: ReadonlySet<string> = new Set(['http', 'ws', 'kubernetes.io/ws']);

/** `other`: it speaks something else, and says so. Undefined: nothing is said of it. `appProtocol` goes before the name. */
export function declaredProtocol({
  name,
  appProtocol,
}: {
  name?: string | undefined;
  appProtocol?: string | undefined;
}): 'http' | 'other' | undefined {
  if (appProtocol !== undefined && appProtocol !== '') return HTTP_1.has(appProtocol.toLowerCase()) ? 'http' : 'other';
  const named = PROTOCOLS.filter((protocol) => name === protocol || name?.startsWith(`${protocol}-`));
  // `grpc-web` is a name of both.
  const longest = named.sort((a, b) => b.length - a.length)[0];
  if (longest === undefined) return undefined;
  return HTTP_1.has(longest) ? 'http' : 'other';
}

/** The annotation's ports. Throws a plain Error for what cannot be read. */
export function annotatedHttpPorts(text: string): number[] {
  const ports = text
    .split(',')
    .map((port) => port.trim())
    .filter((port) => port !== '');
  const odd = ports.find((port) => !/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65535);
  if (odd !== undefined) throw new Error(`${JSON.stringify(odd)} is no port: write ports from 1 to 65535, separated by commas`);
  return sorted(ports.map(Number));
}

/** Of a pod's ports, as its services declare them: HTTP where one says so and none says anything else. */
export function httpPortsOf(declared: Iterable<{ readonly port: number; readonly protocol: 'http' | 'other' | undefined }>): number[] {
  const [http, other] = [new Set<number>(), new Set<number>()];
  for (const { port, protocol } of declared) {
    if (protocol === 'http') http.add(port);
    else if (protocol === 'other') other.add(port);
  }
  return sorted([...http].filter((port) => !other.has(port)));
}

function sorted(ports: readonly number[]): number[] {
  return [...new Set(ports)].sort((a, b) => a - b);
}
