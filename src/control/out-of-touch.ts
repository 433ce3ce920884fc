// Of several controls one that cannot follow the API server knows less than the others: an agent that comes to it would take back what has been decided meanwhile.

import { status } from '@grpc/grpc-js';
import type { DeltaStream } from '../discovery/delta-server.ts';
import { statusError, whenOver } from '../wire/grpc.ts';

/** Each stream is looked at so often; the first time is long after it has been told everything. */
const EVERY_MS = 10_000;

/** While we are out of touch, ends the streams of those that hold something already: they keep it, and ask another control. Who holds nothing is better served with what we know. */
export function leaveWhenOutOfTouch(call: DeltaStream, isInTouch: () => boolean, everyMs = EVERY_MS): void {
  const leave = () => {
    if (!isInTouch()) call.emit('error', statusError(status.UNAVAILABLE, 'this control cannot follow the API server: ask another'));
  };
  const timer = setInterval(leave, everyMs);
  timer.unref();
  whenOver(call, () => clearInterval(timer));
  call.on('data', ({ initialResourceVersions }) => {
    if (Object.keys(initialResourceVersions).length > 0) leave();
  });
}
