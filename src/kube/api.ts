// The Kubernetes API over HTTPS: one JSON request at a time, and answers that stay open (watches). Tokens and authorities are files that somebody else renews.

import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { Readable } from 'node:stream';
import { HandfastError, messageOf } from '../errors.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import { refusalOf } from './status.ts';

export interface KubeRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** With its query, such as `/api/v1/pods?limit=500`. */
  readonly path: string;
  /** Of a PATCH, a merge patch (RFC 7396). */
  readonly body?: unknown;
  readonly signal?: AbortSignal;
}

export type KubeObject = Readonly<Record<string, unknown>>;

export interface KubeApi {
  /** Parsed JSON of the answer. Throws KUBE_NOT_FOUND (404), KUBE_CONFLICT (409), KUBE_GONE (410), KUBE_REFUSED (other 4xx), KUBE_TOO_LONG, with the API server's words, or UNAVAILABLE. */
  request(of: KubeRequest): Promise<KubeObject>;
}

/** Undefined where there is no such object; otherwise throws as `request` does. */
export async function readIfThere(api: KubeApi, of: Pick<KubeRequest, 'path' | 'signal'>): Promise<KubeObject | undefined> {
  try {
    return await api.request({ method: 'GET', ...of });
  } catch (error) {
    if (error instanceof HandfastError && error.code === 'KUBE_NOT_FOUND') return undefined;
    throw error;
  }
}

/** Empty where there is none. */
export function specOf({ spec }: KubeObject): KubeObject {
  return isJsonObject(spec) ? spec : {};
}

export interface WatchableKubeApi extends KubeApi {
  /** The body of a watch as it comes; the caller destroys it. Throws as `request` does. */
  open(path: string, signal: AbortSignal): Promise<Readable>;
}

export interface KubeAccess {
  /** `https://host:port`. */
  readonly server: string;
  /** PEM file of the authorities of its certificate. */
  readonly caFile: string;
  /** File with our bearer token. */
  readonly tokenFile: string;
  /** For a whole answer; default 30 s. */
  readonly timeoutMs?: number;
  /** Of a whole answer. */
  readonly maxAnswerBytes?: number;
}

const TIMEOUT_MS = 30_000;
/** A page of 500 pods is some MB. */
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;
const MAX_REFUSAL_BYTES = 256 * 1024;
/** A connection that says nothing is found out by the kernel. */
const KEEP_ALIVE_MS = 15_000;
/** Kubelet renews projected files long before they end. */
const FILES_FOR_MS = 10_000;

interface Credentials {
  readonly ca: string;
  readonly token: string;
  readonly readAt: number;
}

export class HttpsKubeApi implements WatchableKubeApi {
  readonly #access: KubeAccess;
  readonly #server: URL;
  readonly #agent = new Agent({ keepAlive: true, keepAliveMsecs: KEEP_ALIVE_MS, maxFreeSockets: 4 });
  #credentials: Credentials | undefined;

  /** Throws CONFIG_INVALID for a server that is not asked over https. */
  constructor(access: KubeAccess) {
    if (!URL.canParse(access.server) || new URL(access.server).protocol !== 'https:')
      throw new HandfastError('CONFIG_INVALID', `Kubernetes API server ${JSON.stringify(access.server)}: an https URL is needed`);
    this.#access = access;
    this.#server = new URL(access.server);
  }

  async request({ signal, ...of }: KubeRequest): Promise<KubeObject> {
    const { timeoutMs = TIMEOUT_MS } = this.#access;
    const deadline = AbortSignal.timeout(timeoutMs);
    const what = `${of.method} ${of.path.split('?')[0]}`;
    const ending = signal === undefined ? deadline : AbortSignal.any([signal, deadline]);
    try {
      const answer = await this.#send(of, ending);
      return jsonOf(await readWhole(answer, this.#access.maxAnswerBytes ?? MAX_ANSWER_BYTES), what);
    } catch (cause) {
      if (cause instanceof HandfastError) throw cause;
      const why = deadline.aborted ? `no answer within ${timeoutMs} ms` : messageOf(cause);
      throw new HandfastError('UNAVAILABLE', `${what}: ${why}`, { cause });
    }
  }

  async open(path: string, signal: AbortSignal): Promise<Readable> {
    const { timeoutMs = TIMEOUT_MS } = this.#access;
    // For the answer to begin: how long it lasts is its reader's to say.
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), timeoutMs);
    try {
      return await this.#send({ method: 'GET', path }, AbortSignal.any([signal, late.signal]));
    } catch (cause) {
      if (cause instanceof HandfastError) throw cause;
      const why = late.signal.aborted ? `no answer within ${timeoutMs} ms` : messageOf(cause);
      throw new HandfastError('UNAVAILABLE', `GET ${path.split('?')[0]}: ${why}`, { cause });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends idle connections. */
  close(): void {
    this.#agent.destroy();
  }

  /** An answer of 2xx, its body still to be read. */
  async #send(of: KubeRequest, signal: AbortSignal): Promise<IncomingMessage> {
    const { ca, token } = await this.#read();
    const body = of.body === undefined ? undefined : Buffer.from(JSON.stringify(of.body));
    const headers = {
      accept: 'application/json',
      authorization: `Bearer ${token}`,
      'user-agent': 'handfast',
      ...(body === undefined
        ? {}
        : {
            'content-type': of.method === 'PATCH' ? 'application/merge-patch+json' : 'application/json',
            'content-length': String(body.length),
          }),
    };
    const timeoutMs = this.#access.timeoutMs ?? TIMEOUT_MS;
    const request = httpsRequest(new URL(of.path, this.#server), { method: of.method, headers, ca, agent: this.#agent, signal });
    // Until an answer is here that is worth waiting for: a refusal whose words never end must not be waited for.
    const timer = setTimeout(() => request.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    try {
      const answer = await new Promise<IncomingMessage>((resolve, reject) => {
        request.once('response', resolve).on('error', reject);
        request.end(body);
      });
      // Whoever reads it hears of it too; without a listener it would end the process.
      answer.on('error', () => undefined);
      const status = answer.statusCode ?? 0;
      if (status >= 200 && status < 300) return answer;
      const said = await readWhole(answer, MAX_REFUSAL_BYTES);
      // A token that has just been replaced is read again at the next try.
      if (status === 401) this.#credentials = undefined;
      throw refusalOf({ status, said, what: `${of.method} ${of.path.split('?')[0]}` });
    } finally {
      clearTimeout(timer);
    }
  }

  async #read(): Promise<Credentials> {
    const now = performance.now();
    if (this.#credentials !== undefined && now - this.#credentials.readAt < FILES_FOR_MS) return this.#credentials;
    const { caFile, tokenFile } = this.#access;
    const [ca, token] = [await readText(caFile), (await readText(tokenFile)).trim()];
    if (!/^[\x21-\x7e]+$/.test(token)) throw new HandfastError('UNAVAILABLE', `${tokenFile} holds no bearer token`);
    this.#credentials = { ca, token, readAt: now };
    return this.#credentials;
  }
}

function jsonOf(text: string, what: string): KubeObject {
  try {
    const value: unknown = JSON.parse(text);
    if (isJsonObject(value)) return value;
  } catch {
    // Why not is not said: a parser's message quotes the text, and that may be a list of secrets.
  }
  throw new HandfastError('UNAVAILABLE', `${what}: the answer is no JSON object`);
}

async function readWhole(answer: IncomingMessage, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer) {
    const bytes = Buffer.from(chunk);
    size += bytes.length;
    if (size > maxBytes) {
      answer.destroy();
      throw new HandfastError('KUBE_TOO_LONG', `the answer is longer than ${maxBytes} bytes`);
    }
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString('utf8');
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new HandfastError('UNAVAILABLE', `cannot read ${path}: ${messageOf(cause)}`, { cause });
  }
}
