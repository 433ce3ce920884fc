// A TCP connection and a stream of a tunnel, joined: bytes both ways with backpressure, half-close carried over, resets carried over, nothing left open.

import type { Socket } from 'node:net';
import { type Reading, readInto } from '../net/read-into.ts';
import type { SpliceOutcome } from '../net/splice.ts';
import { H2Error } from './frame.ts';
import { gather } from './gather.ts';
import { TURN_BYTES, type TunnelStream } from './tunnel-stream.ts';

/** Half of the buffer it stands in. */
const WORTH_KEEPING_BYTES = 8 * 1024;
/** One for all applications: what is read is sent, or copied, before the next one is read. Whole frames, so that no read leaves a few bytes over that are a write of their own. */
const READ_BUFFER = Buffer.allocUnsafeSlow(4 * TURN_BYTES);

export interface JoinOptions {
  readonly application: Socket;
  readonly stream: TunnelStream;
  /** Which of the two the application is. */
  readonly applicationIs: 'downstream' | 'upstream';
  /** Cuts everything this connection holds, so that both ends see a reset. */
  readonly abort: () => void;
  /** How long one direction may stay open without a byte after the other has ended. */
  readonly halfCloseTimeoutMs: number;
}

/** Resolves when both are closed. Never rejects. `onError` hears what was behind a reset. */
export function joinTunnel(
  { application, stream, applicationIs, abort, halfCloseTimeoutMs }: JoinOptions,
  onError: (side: 'downstream' | 'upstream', error: Error) => void,
): Promise<SpliceOutcome> {
  const streamIs = applicationIs === 'downstream' ? 'upstream' : 'downstream';
  const { promise, resolve } = Promise.withResolvers<SpliceOutcome>();
  let outcome: SpliceOutcome = 'closed';
  let idle: NodeJS.Timeout | undefined;
  /** What the application has not taken yet. */
  let heldUp = 0;
  let applicationClosed = false;
  /** Both of its directions have ended. */
  let finished = false;

  const fail = (side: 'downstream' | 'upstream', error: Error) => {
    onError(side, error);
    if (outcome === 'closed') outcome = `${side}-reset`;
    abort();
  };
  const closed = () => {
    if (!applicationClosed || !stream.closed) return;
    clearTimeout(idle);
    resolve(outcome);
  };
  const watchHalfClose = () => {
    idle ??= setTimeout(() => {
      if (outcome === 'closed') outcome = 'half-close-timeout';
      abort();
    }, halfCloseTimeoutMs);
  };

  let reading: Reading | undefined;
  const fromApplication = (bytes: Buffer) => {
    idle?.refresh();
    if (!stream.write(bytes)) reading?.stop();
  };
  application.once('end', () => {
    stream.end();
    watchHalfClose();
  });
  application.on('drain', () => {
    const taken = heldUp;
    heldUp = 0;
    if (taken > 0) stream.consumed(taken);
  });
  application.on('error', (error) => fail(applicationIs, error));
  application.once('close', () => {
    applicationClosed = true;
    // Closed before both directions ended: whatever is left cannot be delivered any more. Where it has said and heard everything, its last bytes may still wait for the peer's window.
    if (!finished && !(application.readableEnded && application.writableFinished)) stream.reset(H2Error.CONNECT_ERROR);
    closed();
  });
  // A peer that went away while we were still deciding, or that has ended its half: that is carried over now.
  const [gone, ended] = [application.destroyed, application.readableEnded];
  if (ended && !gone) {
    stream.end();
    watchHalfClose();
  }
  stream.attach({
    data(bytes) {
      idle?.refresh();
      if (application.destroyed) return true;
      let taken: boolean;
      if (bytes.length >= WORTH_KEEPING_BYTES) {
        gather(application);
        taken = application.write(bytes, stream.retain());
      } else {
        // Behind what waits already a piece waits too: a small one must not keep a whole buffer.
        const waits = application.writableLength > 0;
        taken = application.write(waits ? Buffer.from(bytes) : bytes);
        // Not all of it has reached the kernel: then its buffer is still being read, nobody knows for how long.
        if (!waits && application.writableLength > 0) stream.retain();
      }
      if (!taken) heldUp += bytes.length;
      return taken;
    },
    end() {
      // It has said all that it had to say, and heard it: closing says so, a shutdown before it would say it twice.
      if (application.readableEnded && application.writableLength === 0 && !application.destroyed) {
        finished = true;
        application.destroy();
        return;
      }
      application.end();
      watchHalfClose();
    },
    drained: () => reading?.start(),
    broken: (reason) => fail(streamIs, new Error(reason)),
    closed,
  });
  if (gone) {
    if (application.errored) fail(applicationIs, application.errored);
    abort();
    setImmediate(() => {
      if (!application.closed || applicationClosed) return;
      applicationClosed = true;
      stream.reset(H2Error.CONNECT_ERROR);
      closed();
    });
  } else if (!ended && !application.destroyed) {
    reading = readInto(application, { buffer: () => READ_BUFFER, onBytes: fromApplication });
    if (!stream.heldUp) reading.start();
  }
  return promise;
}
