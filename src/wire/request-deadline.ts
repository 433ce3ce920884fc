// A request that is one message must arrive within a time: held back in mid-message it costs us memory and the other side nothing.

import { ServerInterceptingCall, type ServerInterceptor, status } from '@grpc/grpc-js';
import { endConnectionOf } from './caller.ts';

/** Requests that are streams may take as long as they like. */
export function requestDeadline(ms: number): ServerInterceptor {
  return (method, call) => {
    if (method.requestStream) return new ServerInterceptingCall(call);
    // After the loop was busy the timer comes first and the request, long since here, right after it: one more turn for that.
    const timer = setTimeout(() => setImmediate(late), ms).unref();
    let over = false;
    const end = () => {
      over = true;
      clearTimeout(timer);
    };
    const late = () => {
      if (over) return;
      end();
      call.sendStatus({ code: status.DEADLINE_EXCEEDED, details: `the request was not complete within ${ms} ms` });
      // Its stream, and what has come of its message, would stay until the other side ends it.
      setImmediate(() => endConnectionOf(call));
    };
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveHalfClose: (go) => {
            end();
            go();
          },
          onCancel: end,
        }),
    });
  };
}
