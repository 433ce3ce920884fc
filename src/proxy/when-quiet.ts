// When an open connection can be ended without anybody missing a byte, as far as that can be told from outside: the server spoke last, and then nobody for a while.
// What was said before it is looked at is not known: where nobody speaks at all, a slow answer may be on its way, and it is given the whole time.

import type { Duplex } from 'node:stream';
import { TunnelStream } from '../hbone/tunnel-stream.ts';

interface Sides {
  readonly downstream: Duplex | TunnelStream;
  readonly upstream: Duplex | TunnelStream;
}

/** `late`: after this it is not waited for any longer. `quietFirst`, `quietLast`: how long it must have been quiet in the beginning, and near the end of that time. */
interface Timing {
  readonly lookEveryMs: number;
  readonly lateMs: number;
  readonly quietFirstMs: number;
  readonly quietLastMs: number;
  /** Milliseconds of a clock that never goes back. */
  readonly now: () => number;
}

const TIMING: Timing = { lookEveryMs: 50, lateMs: 10_000, quietFirstMs: 1_000, quietLastMs: 50, now: () => performance.now() };

/** Looks until it is quiet or too late, or until the returned function is called. `sides` are known once both are joined. */
export function whenQuiet(
  sides: () => Sides | undefined,
  on: { onQuiet(sides: Sides): void; onLate(): void },
  { lookEveryMs, lateMs, quietFirstMs, quietLastMs, now: clock }: Timing = TIMING,
): () => void {
  const begun = clock();
  let serverSpokeLast = false;
  let lastWordAt = begun;
  let stopHearing: (() => void) | undefined;
  const onClient = () => {
    serverSpokeLast = false;
    lastWordAt = clock();
  };
  const onServer = () => {
    serverSpokeLast = true;
    lastWordAt = clock();
  };
  const stop = () => {
    clearInterval(timer);
    stopHearing?.();
  };
  const look = () => {
    const current = sides();
    if (current === undefined) return;
    const now = clock();
    if (stopHearing === undefined) {
      stopHearing = hear(current, onClient, onServer);
      lastWordAt = now;
    }
    const quiet = now - lastWordAt;
    const left = Math.max(0, lateMs - (now - begun));
    const quietFor = quietLastMs + ((quietFirstMs - quietLastMs) * left) / lateMs;
    if (left === 0 ? quiet >= quietFirstMs : serverSpokeLast && quiet >= quietFor) {
      stop();
      on.onQuiet(current);
    } else if (left === 0) {
      stop();
      on.onLate();
    }
  };
  const timer = setInterval(look, lookEveryMs);
  timer.unref();
  // What is said from now on counts, not from the first look on.
  look();
  return stop;
}

/** Calls back when either side speaks, until the returned function is called. Of a tunnel's connection the stream knows both. */
function hear({ downstream, upstream }: Sides, onClient: () => void, onServer: () => void): () => void {
  if (downstream instanceof TunnelStream) {
    downstream.watch({ received: onClient, written: onServer });
    return () => downstream.watch(undefined);
  }
  if (upstream instanceof TunnelStream) {
    upstream.watch({ received: onServer, written: onClient });
    return () => upstream.watch(undefined);
  }
  downstream.on('data', onClient);
  upstream.on('data', onServer);
  return () => {
    downstream.removeListener('data', onClient);
    upstream.removeListener('data', onServer);
  };
}
