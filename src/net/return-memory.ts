// Memory that was needed once and is not any more goes back to the system: what loading and compiling left behind, and what malloc keeps after a burst.

import { memoryUsage } from 'node:process';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { libc } from './libc.ts';

/** When a process has loaded what it needs. */
const STARTED_MS = 1_000;
/** Cheap: a walk over the free lists, a millisecond or so. */
const EVERY_MS = 60_000;
/** What a process may grow by before the garbage is looked for: TLS contexts and sessions are OpenSSL's memory, which V8 does not see, so that it would wait for long. Some 10 ms each time. */
const MAY_GROW_BYTES = 16 * 1024 * 1024;

const trim = libc.func('int malloc_trim(size_t pad)');

/** Once soon after the start thoroughly, which takes some 20 ms, and then what malloc can spare, once a minute, and garbage where it may be that. Keeps no process alive. */
export function returnMemory(signal: AbortSignal): void {
  let rss = 0;
  const collectAll = (flavor: 'last-resort' | 'regular') => {
    collect(flavor);
    trim(0);
    rss = memoryUsage.rss();
  };
  const once = setTimeout(() => collectAll('last-resort'), STARTED_MS).unref();
  const timer = setInterval(() => {
    if (memoryUsage.rss() > rss + MAY_GROW_BYTES) collectAll('regular');
    else trim(0);
  }, EVERY_MS).unref();
  signal.addEventListener(
    'abort',
    () => {
      clearTimeout(once);
      clearInterval(timer);
    },
    { once: true },
  );
}

/** V8 offers its most thorough collection only by name. */
function collect(flavor: 'last-resort' | 'regular'): void {
  setFlagsFromString('--expose-gc');
  const gc: unknown = runInNewContext('gc');
  if (typeof gc === 'function') gc({ type: 'major', flavor });
  setFlagsFromString('--no-expose-gc');
}
