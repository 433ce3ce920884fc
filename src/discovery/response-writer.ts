// How responses leave a serving stream: one after the other, only to a client that still may have them, and to be answered in time.

import { status } from '@grpc/grpc-js';
import { statusError } from '../wire/grpc.ts';

export interface ResponseRules {
  /** Asked before each response: false when the stream has been ended instead. */
  readonly mayPush?: () => boolean;
  /** A stream whose client has not answered a response for so long is ended. Without it a client may take its time. */
  readonly answerTimeoutMs?: number | undefined;
}

/** The part of a gRPC stream that is written to. */
interface ResponseStream<Response> {
  write(response: Response, whenLeft: () => void): unknown;
  emit(event: 'error', error: Error): unknown;
}

export class ResponseWriter<Response extends { nonce: string }> {
  readonly #call: ResponseStream<Response>;
  readonly #rules: ResponseRules;
  readonly #whenFree: () => void;
  readonly #unanswered = new Map<string, NodeJS.Timeout>();
  #leaving = false;
  #ended = false;

  /** `whenFree` is called each time a response has left. */
  constructor(call: ResponseStream<Response>, rules: ResponseRules, whenFree: () => void) {
    this.#call = call;
    this.#rules = rules;
    this.#whenFree = whenFree;
  }

  /** False while a response has not left for the connection: a client that does not read must not fill our memory with what it will not want. */
  get free(): boolean {
    return !this.#leaving && !this.#ended;
  }

  /** False when the client may have nothing any more; the stream has ended then. */
  mayPush(): boolean {
    return !this.#ended && this.#rules.mayPush?.() !== false;
  }

  write(response: Response): void {
    const { answerTimeoutMs } = this.#rules;
    if (answerTimeoutMs !== undefined) {
      const late = () => {
        const details = `a response was not answered (ACK or NACK) for ${answerTimeoutMs / 1000} s: come again`;
        this.#call.emit('error', statusError(status.DEADLINE_EXCEEDED, details));
      };
      this.#unanswered.set(response.nonce, setTimeout(late, answerTimeoutMs).unref());
    }
    this.#leaving = true;
    this.#call.write(response, () => {
      this.#leaving = false;
      if (!this.#ended) this.#whenFree();
    });
  }

  answered(nonce: string): void {
    clearTimeout(this.#unanswered.get(nonce));
    this.#unanswered.delete(nonce);
  }

  end(): void {
    this.#ended = true;
    for (const timer of this.#unanswered.values()) clearTimeout(timer);
    this.#unanswered.clear();
  }
}
