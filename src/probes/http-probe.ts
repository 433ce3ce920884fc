// The application asked over HTTP or HTTPS as kubelet asks: its headers, its redirects, its idea of success (pkg/probe/http of Kubernetes).

import { request } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as tlsConnect } from 'node:tls';
import { endpointText } from '../policy/ip.ts';
import type { HttpGetAction } from './app-probers.ts';
import { type Asking, dialApplication, type ProbeAnswer } from './asking.ts';

/** As Go's client has it. */
const MAX_REQUESTS = 10;
/** As much of a body as kubelet reads. */
const MAX_BODY_BYTES = 10_240;
const FOLLOWED: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** Go's client writes these itself, or not at all. */
const NOT_PASSED_ON: ReadonlySet<string> = new Set(['host', 'user-agent', 'content-length', 'transfer-encoding', 'trailer']);

interface Target {
  readonly url: URL;
  /** As it goes over the wire: a URL would have it normalized. */
  readonly path: string;
  readonly host: string;
}

interface Response {
  readonly status: number;
  readonly location: string | undefined;
}

/** The application's status. Rejects where there was no whole answer. */
export async function httpProbe(action: HttpGetAction, asking: Asking): Promise<ProbeAnswer> {
  let target = firstTarget(action, asking);
  for (let requests = 1; ; requests++) {
    const response = await exchange(target, action, asking);
    if (response.status < 200) return { status: 500, text: `the application answered ${response.status}` };
    if (response.status < 300 || response.status >= 400)
      return { status: response.status, text: `the application answered ${response.status}` };
    const next = redirected(response, target, action);
    // Kubelet counts it as a success and warns: whether another host is well says nothing about this one.
    if (next === undefined || !asking.ports.has(portOf(next.url)) || next.url.hostname !== target.url.hostname)
      return { status: 200, text: `the application answered ${response.status}, and its redirection is not followed` };
    if (requests >= MAX_REQUESTS) throw new Error(`stopped after ${MAX_REQUESTS} redirects`);
    target = next;
  }
}

function firstTarget({ scheme, port, path, httpHeaders }: HttpGetAction, { address }: Asking): Target {
  const authority = endpointText({ address, port });
  return {
    url: new URL(`${scheme.toLowerCase()}://${authority}${path}`),
    path,
    host: headerOf(httpHeaders, 'host') || authority,
  };
}

/** Undefined where there is nothing to follow. */
function redirected({ status, location }: Response, from: Target, { httpHeaders }: HttpGetAction): Target | undefined {
  if (!FOLLOWED.has(status) || location === undefined) return undefined;
  if (!URL.canParse(location, from.url.href)) throw new Error(`the application redirects to ${JSON.stringify(location.slice(0, 200))}`);
  const url = new URL(location, from.url.href);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return undefined;
  // A Host of the probe's stays as long as a redirection names no host itself.
  const keptHost = URL.canParse(location) ? undefined : headerOf(httpHeaders, 'host');
  return { url, path: `${url.pathname}${url.search}`, host: keptHost || url.host };
}

function portOf(url: URL): number {
  if (url.port !== '') return Number(url.port);
  return url.protocol === 'https:' ? 443 : 80;
}

async function exchange(target: Target, action: HttpGetAction, asking: Asking): Promise<Response> {
  const socket = await dialApplication(portOf(target.url), asking);
  try {
    // Kubelet does not verify it either: nothing is said to the application that would need it, and its answer is a status.
    const secured = () => tlsConnect({ socket, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] }).on('error', () => undefined);
    return await respond(target.url.protocol === 'https:' ? secured() : socket, { target, action, asking });
  } finally {
    socket.destroy();
  }
}

function respond(over: Socket, { target, action, asking }: { target: Target; action: HttpGetAction; asking: Asking }): Promise<Response> {
  return new Promise((resolve, reject) => {
    const asked = request({
      createConnection: (): Duplex => over,
      path: target.path,
      headers: headersOf(action, target.host, asking.userAgent),
      setHost: false,
      signal: asking.signal,
    });
    asked.on('error', reject);
    asked.once('upgrade', ({ statusCode = 0 }) => resolve({ status: statusCode, location: undefined }));
    asked.once('response', (response) => {
      const { statusCode = 0, headers } = response;
      const done = () => resolve({ status: statusCode, location: headers.location });
      let read = 0;
      response.on('error', reject);
      response.once('end', done);
      response.on('data', (chunk: Buffer) => {
        read += chunk.length;
        if (read >= MAX_BODY_BYTES) done();
      });
    });
    asked.end();
  });
}

/** Names and values by turns. Whoever asks 15020 says who asks, and nothing else of what the application hears. */
function headersOf({ httpHeaders }: HttpGetAction, host: string, userAgent: string | undefined): string[] {
  const accept = headerOf(httpHeaders, 'accept');
  const agent = headerOf(httpHeaders, 'user-agent') ?? userAgent;
  const headers = ['Host', host];
  if (agent !== undefined && agent !== '') headers.push('User-Agent', agent);
  if (accept === undefined) headers.push('Accept', '*/*');
  for (const { name, value } of httpHeaders) {
    const lower = name.toLowerCase();
    // An Accept without a value is how kubelet is told to send none.
    if (!NOT_PASSED_ON.has(lower) && !(lower === 'accept' && accept === '')) headers.push(name, value);
  }
  return headers;
}

function headerOf(headers: HttpGetAction['httpHeaders'], lower: string): string | undefined {
  return headers.find(({ name }) => name.toLowerCase() === lower)?.value;
}
