// handfast wait: until the sidecar of this pod is ready, for a container that must not start before it.

import { setTimeout as wait } from 'node:timers/promises';
import { HandfastError, messageOf } from '../errors.ts';
import { parseFlags } from '../flags.ts';

const flags = {
  port: { kind: 'port', default: 15021, help: "the sidecar's readiness, on 127.0.0.1" },
  timeout: { kind: 'duration', default: '60s', min: '1ms', max: '24h', help: 'how long to wait' },
} as const;

const POLL_MS = 200;
/** The last answer is waited for even beyond the timeout: it says what is missing. */
const ANSWER_MS = 5_000;
const MAX_SAID = 2_000;

/** 0 when it is ready, 1 when told to end. Throws UNAVAILABLE, with what was missing last, when it is not in time. */
export async function run(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const { port, timeout } = parseFlags(argv, flags, { command: 'handfast wait', summary: 'Waits until the sidecar of this pod is ready.' });
  const url = `http://127.0.0.1:${port}/healthz/ready`;
  const deadline = performance.now() + timeout;
  for (;;) {
    const missing = await ask(url);
    if (missing === undefined) return 0;
    const left = deadline - performance.now();
    if (left <= 0) throw new HandfastError('UNAVAILABLE', `the sidecar is not ready after ${timeout} ms: ${missing}`);
    // Told to end: that is no answer.
    await wait(Math.min(POLL_MS, left), undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return 1;
  }
}

/** What is missing; undefined when it is ready. */
async function ask(url: string): Promise<string | undefined> {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(ANSWER_MS), redirect: 'error' });
    const said = (await answer.text()).slice(0, MAX_SAID).trim();
    return answer.status === 200 ? undefined : said.split('\n').join('; ');
  } catch (error) {
    const { cause } = error instanceof Error ? error : {};
    return `${url}: ${messageOf(cause ?? error)}`;
  }
}
