// How often the client of one stream may say something: each word of it costs us work.

import { status } from '@grpc/grpc-js';
import { type Rate, TokenBucket } from '../rate-limit.ts';
import { statusError } from '../wire/grpc.ts';

/** An answer to each rotation and a change of names now and then are far below this, and so is a report a second. */
const REQUESTS: Rate = { burst: 100, perSecond: 20 };

/** To be called at each request of a stream. Throws the status to end it with. */
export function requestLimit(rate: Rate = REQUESTS): () => void {
  const requests = new TokenBucket(rate);
  return () => {
    if (requests.take() > 0) throw statusError(status.RESOURCE_EXHAUSTED, `more than ${rate.perSecond} requests a second on one stream`);
  };
}
