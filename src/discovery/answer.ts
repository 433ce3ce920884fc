// One answer to each discovery response: ACK when all of it was taken, NACK with the reason when nothing was.

import { status } from '@grpc/grpc-js';
import { messageOf } from '../errors.ts';
import type { Status } from '../wire/gen/google/rpc/status.ts';

/** Takes a response by `take`, which throws or rejects to refuse it, and answers: without an error for ACK. The answer to one that takes its time comes later. */
export function answer(take: () => void | Promise<void>, reply: (refusal: Status | undefined) => void): void {
  const refuse = (error: unknown) => reply({ code: status.INVALID_ARGUMENT, message: messageOf(error), details: [] });
  try {
    const taking = take();
    if (taking === undefined) reply(undefined);
    else taking.then(() => reply(undefined), refuse);
  } catch (error) {
    refuse(error);
  }
}
