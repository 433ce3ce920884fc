// Two sockets joined: bytes both ways with backpressure, half-close carried over, resets carried over, nothing left open.

import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { TLSSocket } from 'node:tls';

/** How a spliced connection ended. Resets and broken pipes are outcomes, not errors. */
export type SpliceOutcome = 'closed' | 'downstream-reset' | 'upstream-reset' | 'half-close-timeout';

export interface SpliceOptions {
  readonly downstream: Duplex;
  readonly upstream: Duplex;
  /** Cuts everything this connection holds, so that both ends see a reset. */
  readonly abort: () => void;
  /** How long one direction may stay open without a byte after the other has ended. */
  readonly halfCloseTimeoutMs: number;
}

/** Resolves when both sockets are closed. Never rejects. `onError` hears the error behind a reset. */
export function splice(
  { downstream, upstream, abort, halfCloseTimeoutMs }: SpliceOptions,
  onError?: (side: 'downstream' | 'upstream', error: Error) => void,
): Promise<SpliceOutcome> {
  return new Promise((resolve) => {
    let outcome: SpliceOutcome = 'closed';
    let open = 2;
    let idle: NodeJS.Timeout | undefined;

    const fail = (side: 'downstream' | 'upstream') => (error: Error) => {
      onError?.(side, error);
      if (outcome === 'closed') outcome = `${side}-reset`;
      abort();
    };
    const closed = (other: Duplex) => () => {
      open--;
      // Closed before both directions ended: whatever is left cannot be delivered any more.
      if (open > 0 && !(other.readableEnded && other.writableEnded)) {
        if (!other.writableEnded) abort();
        else if (!other.readableEnded) other.destroy();
      }
      if (open === 0) {
        clearTimeout(idle);
        resolve(outcome);
      }
    };
    const watchHalfClose = (stillOpen: Duplex) => {
      if (idle !== undefined) return;
      const expire = () => {
        outcome = 'half-close-timeout';
        downstream.destroy();
        upstream.destroy();
      };
      idle = setTimeout(expire, halfCloseTimeoutMs);
      stillOpen.on('data', () => idle?.refresh());
    };

    downstream.on('error', fail('downstream'));
    upstream.on('error', fail('upstream'));
    downstream.once('close', closed(upstream));
    upstream.once('close', closed(downstream));
    downstream.once('end', () => watchHalfClose(upstream));
    upstream.once('end', () => watchHalfClose(downstream));
    // A peer that went away while we were still deciding has had its events already.
    if (downstream.destroyed || upstream.destroyed) {
      open -= Number(downstream.closed) + Number(upstream.closed);
      downstream.destroy();
      upstream.destroy();
      if (open <= 0) resolve(outcome);
      return;
    }
    // An end that came while the connection was still being judged is carried over now.
    if (downstream.readableEnded) upstream.end();
    else downstream.pipe(upstream);
    if (upstream.readableEnded) downstream.end();
    else upstream.pipe(downstream);
  });
}

/** Ends a socket at once: with a reset where it is TCP. A TLS connection is reset by the TCP socket beneath it. */
export function cut(socket: Duplex): void {
  if (socket instanceof Socket && !(socket instanceof TLSSocket) && !socket.destroyed) socket.resetAndDestroy();
  else socket.destroy();
}
