// Load for a while: workers that open a connection for each request, and long-lived connections that keep asking.
// Usage: load.ts URL SECONDS SHORT LONG; prints one JSON line.

import { Agent, get } from 'node:http';

interface LoadResult {
  requests: number;
  failures: number;
  /** First few, in words. */
  errors: string[];
  /** Connections that lived from the first second to the last, each on one socket. */
  longLived: { port: number; requestsFirstHalf: number; requestsSecondHalf: number }[];
}

const [url = '', seconds = '10', short = '20', long = '5'] = process.argv.slice(2);
const startedAt = Date.now();
const endsAt = startedAt + Number(seconds) * 1000;
const halfway = startedAt + Number(seconds) * 500;
const result: LoadResult = { requests: 0, failures: 0, errors: [], longLived: [] };
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Resolves with the local port the request went out from. */
function ask(agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = get(url, { agent, timeout: 10_000 }, (response) => {
      const port = response.socket.localPort ?? 0;
      response.on('error', reject);
      response.on('data', () => undefined);
      response.on('end', () =>
        response.statusCode === 200 && response.complete ? resolve(port) : reject(new Error(`status ${response.statusCode}`)),
      );
    });
    request.on('timeout', () => request.destroy(new Error('no answer within 10 s')));
    request.on('error', reject);
  });
}

async function counted(agent: Agent): Promise<number> {
  result.requests++;
  try {
    return await ask(agent);
  } catch (error) {
    result.failures++;
    if (result.errors.length < 5) result.errors.push(String(error));
    return -1;
  }
}

async function shortLived(): Promise<void> {
  const agent = new Agent({ keepAlive: false });
  while (Date.now() < endsAt) {
    await counted(agent);
    await pause(100);
  }
}

async function longLived(): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set<number>();
  const halves = [0, 0];
  while (Date.now() < endsAt) {
    const half = Date.now() < halfway ? 0 : 1;
    const port = await counted(agent);
    ports.add(port);
    halves[half] = (halves[half] ?? 0) + 1;
    await pause(200);
  }
  agent.destroy();
  const [port] = ports;
  if (ports.size === 1 && port !== undefined && port > 0)
    result.longLived.push({ port, requestsFirstHalf: halves[0] ?? 0, requestsSecondHalf: halves[1] ?? 0 });
}

await Promise.all([...Array.from({ length: Number(short) }, shortLived), ...Array.from({ length: Number(long) }, longLived)]);
process.stdout.write(`${JSON.stringify(result)}\n`);
