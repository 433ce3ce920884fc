// Memory that was needed once and is not any more goes back to the system: what loading and compiling left behind, and what malloc keeps after a burst.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { libc } from './libc.ts';

/** When a process has loaded what it needs. */
const STARTED_MS = 1_000;
/** Cheap: a walk over the free lists, a millisecond or so. */
const EVERY_MS = 60_000;

const trim = libc.func('int malloc_trim(size_t pad)');

/** Once soon after the start thoroughly, which takes some 20 ms, and then what malloc can spare, once a minute. Keeps no process alive. */
export function returnMemory(signal: AbortSignal): void {
  const once = setTimeout(() => {
    collect();
    trim(0);
  }, STARTED_MS).unref();
  const timer = setInterval(() => trim(0), EVERY_MS).unref();
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
function collect(): void {
  setFlagsFromString('--expose-gc');
  const gc: unknown = runInNewContext('gc');
  if (typeof gc === 'function') gc({ type: 'major', flavor: 'last-resort' });
  setFlagsFromString('--no-expose-gc');
}
