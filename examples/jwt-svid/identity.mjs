// What an application needs of its sidecar's identity port, with nothing but node:http: a token for a call, and a middleware that has callers' tokens judged.

import { Agent, request } from 'node:http';

const PORT = Number(process.env.HANDFAST_IDENTITY_PORT ?? 15004);
const TIMEOUT_MS = 15_000;
/** The sidecar takes 256 connections of the whole pod: what is more waits here, instead of being turned away there. */
const agent = new Agent({ keepAlive: true, maxSockets: 32 });

/**
 * A token that says who we are, for one audience: put it into `authorization: Bearer ...`. Ask for each call: the sidecar keeps it for half its life.
 * @param {string} audience
 * @returns {Promise<string>}
 */
export async function jwtSvid(audience) {
  const { token } = await ask('/v1/jwt-svid', { audience: [audience] });
  return token;
}

/**
 * Who a token speaks for, or why it does not: `{ valid, spiffeId, trustDomain, namespace, serviceAccount, audience, expiresAt }` or `{ valid, reason, message }`.
 * @param {string} token
 * @param {string} audience our own name: never one that the caller has chosen
 */
export function validateJwtSvid(token, audience) {
  return ask('/v1/jwt-svid/validate', { token, audience });
}

/**
 * Answers 401 without a valid token and 503 while nobody can say; otherwise sets `request.spiffe` and goes on. What the caller may do is for `handle` to decide.
 * @param {{ audience: string }} options
 * @param {(request: import('node:http').IncomingMessage & { spiffe: any }, response: import('node:http').ServerResponse) => void} handle
 * @returns {import('node:http').RequestListener}
 */
export function withJwtSvid({ audience }, handle) {
  return async (incoming, response) => {
    const refuse = (status, reason) => {
      response.writeHead(status, { 'content-type': 'application/json', ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}) });
      response.end(JSON.stringify({ reason }));
    };
    const [, token] = /^Bearer ([^\s]+)$/i.exec(incoming.headers.authorization ?? '') ?? [];
    if (token === undefined) return refuse(401, 'TOKEN_MISSING');
    let verdict;
    try {
      verdict = await validateJwtSvid(token, audience);
    } catch {
      return refuse(503, 'UNAVAILABLE');
    }
    if (verdict.valid !== true) return refuse(401, verdict.reason);
    handle(Object.assign(incoming, { spiffe: verdict }), response);
  };
}

function ask(path, body) {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json', 'workload.spiffe.io': 'true' };
    const asked = request(
      { agent, host: '127.0.0.1', port: PORT, path, method: 'POST', headers, timeout: TIMEOUT_MS },
      async (response) => {
        try {
          let text = '';
          for await (const chunk of response.setEncoding('utf8')) text += chunk;
          const answer = JSON.parse(text);
          if (response.statusCode === 200) resolve(answer);
          else reject(new Error(`the sidecar answered ${response.statusCode} ${answer.code}: ${answer.message}`));
        } catch (error) {
          reject(error);
        }
      },
    );
    asked.on('error', reject).on('timeout', () => asked.destroy(new Error('the sidecar did not answer in time')));
    asked.end(JSON.stringify(body));
  });
}
