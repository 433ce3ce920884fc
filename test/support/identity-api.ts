// The identity API as an application asks it.

import { request } from 'node:http';
import { connect } from 'node:net';

export interface Answered {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, unknown>>;
}

export interface Asking {
  readonly method?: string;
  /** As it is, or as JSON. */
  readonly body?: unknown;
  /** In the guard header's stead, and beside the Host. */
  readonly headers?: Readonly<Record<string, string | string[]>>;
  readonly host?: string;
  readonly from?: string;
}

export const GUARD = { 'workload.spiffe.io': 'true' };

export function askIdentity(port: number, path: string, asking: Asking = {}): Promise<Answered> {
  const { method = asking.body === undefined ? 'GET' : 'POST', body, headers = GUARD, host = '127.0.0.1', from } = asking;
  return new Promise((resolve, reject) => {
    const options = { host, port, path, method, headers, agent: false, ...(from === undefined ? {} : { localAddress: from }) };
    const asked = request(options, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk) => chunks.push(chunk)).on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        resolve({ status: response.statusCode ?? 0, body: text === '' ? {} : JSON.parse(text), headers: response.headers });
      });
    });
    asked.on('error', reject);
    asked.end(body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body));
  });
}

export const issue = (port: number, audience: unknown, more: Asking = {}) =>
  askIdentity(port, '/v1/jwt-svid', { body: { audience }, ...more });
export const validate = (port: number, token: unknown, audience: unknown = 'b', more: Asking = {}) =>
  askIdentity(port, '/v1/jwt-svid/validate', { body: { token, audience }, ...more });

/** Says these bytes and returns all that comes until the connection ends. */
export function sayRaw(port: number, text: string, from?: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, ...(from === undefined ? {} : { localAddress: from }) });
    const chunks: Buffer[] = [];
    socket.on('data', (chunk) => chunks.push(chunk)).on('close', () => resolve(Buffer.concat(chunks).toString()));
    socket.on('error', (error) => (chunks.length > 0 ? undefined : reject(error)));
    socket.write(text);
  });
}
