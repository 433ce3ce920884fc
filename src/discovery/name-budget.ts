// How many names all streams of an agent may ask for together: whoever opens many streams must not fill its memory with them.

import { status } from '@grpc/grpc-js';
import { statusError } from '../wire/grpc.ts';

/** Some hundred megabytes at most; a full node needs a tenth of it. */
const MAX_NAMES = 262_144;
/** Of one stream, which nobody else can take away: more than most pods speak to. */
const OWN_NAMES = 64;

export class NameBudget {
  readonly #max: number;
  #taken = 0;

  constructor(max = MAX_NAMES) {
    this.#max = max;
  }

  /** One more for a stream that has so many. Throws the status to end it with. */
  take(has: number): void {
    if (this.#taken >= this.#max && has >= OWN_NAMES)
      throw statusError(status.RESOURCE_EXHAUSTED, `the streams of this node ask for ${this.#taken} names together: no more are taken`);
    this.#taken++;
  }

  give(count: number): void {
    this.#taken -= count;
  }
}
