// One answer to each discovery response: ACK when all of it was taken, NACK with the reason when nothing was.

import { status } from '@grpc/grpc-js';
import { messageOf } from '../errors.ts';
import type { Status } from '../wire/gen/google/rpc/status.ts';
import { printable } from './printable.ts';

const MAX_REASON = 1_000;

/** Takes a response by `take`, which throws or rejects to refuse it, and answers: without an error for ACK. The answer to one that takes its time comes later. */
export function answer(take: () => void | Promise<void>, reply: (refusal: Status | undefined) => void): void {
  const refuse = (error: unknown) => reply({ code: status.INVALID_ARGUMENT, message: shortened(messageOf(error)), details: [] });
  let taking: void | Promise<void>;
  try {
    taking = take();
  } catch (error) {
    refuse(error);
    return;
  }
  if (taking === undefined) reply(undefined);
  else taking.then(() => reply(undefined), refuse);
}

/** The reason that a client gives for its NACK, as it may be kept and logged. */
export function refusalText({ message }: Status): string {
  return shortened(message);
}

/** A peer's words, cut to what one line of a log or terminal bears: they are kept for each stream, and may be megabytes. */
export function shortened(text: string): string {
  return printable(text.length > MAX_REASON ? `${text.slice(0, MAX_REASON)}…` : text);
}
