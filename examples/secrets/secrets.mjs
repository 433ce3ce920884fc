// An application's side of the secret channel, in node:http alone: the secret as it is now, each change of it, and the word that it is in use.

import { Agent, request } from 'node:http';
import { setTimeout as delay } from 'node:timers/promises';

const agent = new Agent({ keepAlive: true, maxSockets: 4 });

/** @returns {Promise<{status: number, body: any}>} */
function ask({ port, path, body, signal }) {
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        ...{ host: '127.0.0.1', port, path, agent, signal },
        method: body === undefined ? 'GET' : 'POST',
        headers: { 'workload.spiffe.io': 'true' },
      },
      (response) => {
        const chunks = [];
        response.on('data', (chunk) => chunks.push(chunk)).on('error', reject);
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString();
          resolve({ status: response.statusCode ?? 0, body: text === '' ? undefined : JSON.parse(text) });
        });
      },
    );
    asked.on('error', reject);
    asked.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

/**
 * Calls `use` with each version of the secret (`NAMESPACE/NAME`) as it becomes the current one, values as Buffers by their names, and confirms it when `use` has
 * resolved; with undefined when the secret was taken back. Until the signal aborts.
 */
export async function followSecret({ name, use, port = 15004, signal }) {
  const path = `/v1/secrets/${name}`;
  let version;
  while (!signal.aborted) {
    try {
      const { status, body } = await ask({ port, path: version === undefined ? path : `${path}?after=${version}`, signal });
      if (status === 200) {
        const data = Object.fromEntries(Object.entries(body.data).map(([key, text]) => [key, Buffer.from(String(text), 'base64')]));
        await use({ version: body.current, data });
        const receipt = await ask({ port, path: `${path}/receipt`, body: { version: body.current }, signal });
        if (receipt.status < 300) {
          version = body.current;
          continue;
        }
        // Nobody has heard that it is in use: all of it once more, a moment later.
      }
      // Nothing newer: asked again at once.
      if (status === 204) continue;
      if (status === 404 && version !== undefined) {
        version = undefined;
        await use(undefined);
      }
    } catch (error) {
      // The sidecar is starting, or ending; or we are.
      if (!signal.aborted && error?.code === undefined) throw error;
    }
    await delay(1_000, undefined, { signal }).catch(() => undefined);
  }
}
