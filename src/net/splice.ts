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
    const open = new Set([downstream, upstream]);
    let idle: NodeJS.Timeout | undefined;

    const fail = (side: 'downstream' | 'upstream') => (error: Error) => {
      onError?.(side, error);
      if (outcome === 'closed') outcome = `${side}-reset`;
      abort();
    };
    const closed = (socket: Duplex, other: Duplex) => () => {
      if (!open.delete(socket)) return;
      // Closed before both directions ended: whatever is left cannot be delivered any more.
      if (open.size > 0 && !(other.readableEnded && other.writableEnded)) {
        if (!other.writableEnded) abort();
        else if (!other.readableEnded) other.destroy();
      }
      if (open.size === 0) {
        clearTimeout(idle);
        resolve(outcome);
      }
    };
    const onDownstreamClose = closed(downstream, upstream);
    const onUpstreamClose = closed(upstream, downstream);
    const watchHalfClose = (stillOpen: Duplex) => {
      if (idle !== undefined) return;
      const expire = () => {
        outcome = 'half-close-timeout';
        abort();
      };
      idle = setTimeout(expire, halfCloseTimeoutMs);
      stillOpen.on('data', () => idle?.refresh());
    };

    downstream.on('error', fail('downstream'));
    upstream.on('error', fail('upstream'));
    downstream.once('close', onDownstreamClose);
    upstream.once('close', onUpstreamClose);
    downstream.once('end', () => watchHalfClose(upstream));
    upstream.once('end', () => watchHalfClose(downstream));
    // A peer that went away while we were still deciding.
    if (downstream.destroyed || upstream.destroyed) {
      if (downstream.errored) fail('downstream')(downstream.errored);
      if (upstream.errored) fail('upstream')(upstream.errored);
      abort();
      // 'close' follows `closed` by a tick, so whoever is closed by then has said so or never will again.
      setImmediate(() => {
        for (const [socket, heard] of [
          [downstream, onDownstreamClose],
          [upstream, onUpstreamClose],
        ] as const)
          if (socket.closed) heard();
      });
      return;
    }
    // An end that came while the connection was still being judged is carried over now.
    const join = (from: Duplex, to: Duplex) => {
      if (!from.readableEnded) {
        from.pipe(to);
        return;
      }
      to.end();
      watchHalfClose(to);
    };
    join(downstream, upstream);
    join(upstream, downstream);
  });
}

/**
 * Ends a socket at once: with a reset where it is TCP. A TLS connection is reset by the TCP socket beneath it, for which `top` is the TLS.
 * While a shutdown is under way libuv refuses to reset, and Node would then neither close the handle nor say so: it is closed instead.
 */
export function cut(socket: Duplex, top: Duplex = socket): void {
  if (socket.destroyed) return;
  // With bytes still to be written the shutdown has not begun: then a reset is possible, and a clean end would be a lie.
  const shuttingDown = top.writableEnded && !top.writableFinished && top.writableLength === 0;
  // One that is not connected yet would be reset only when it is.
  const connected = socket instanceof Socket && !socket.connecting;
  if (connected && !(socket instanceof TLSSocket) && !shuttingDown) socket.resetAndDestroy();
  else socket.destroy();
}
