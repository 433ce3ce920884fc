// A timer by the wall clock: certificates end by it, and it may be set, or pass while a machine sleeps.

/** Looked at again at least this often; far below the 24.8 days that setTimeout can take. */
const MAX_WAIT_MS = 600_000;

/** Calls back once when `now` has passed `at` (Unix milliseconds). It keeps no process alive. Returns the way to stop it. */
export function atWallTime(at: number, { now, callback }: { now: () => number; callback: () => void }): () => void {
  let timer: NodeJS.Timeout;
  const arm = () => {
    timer = setTimeout(
      () => {
        if (now() > at) callback();
        else arm();
      },
      Math.min(MAX_WAIT_MS, Math.max(1, at - now() + 1)),
    ).unref();
  };
  arm();
  return () => clearTimeout(timer);
}
