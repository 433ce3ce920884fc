// A stream of the Workload API: an answer now and after each change, as long as the process that opened it lives and is registered.

import { createHash } from 'node:crypto';
import type { ServerWritableStream } from '@grpc/grpc-js';
import type { Log } from '../observe/log.ts';
import { statusOf } from './workload-api-errors.ts';
import type { Admitted, WorkloadGate } from './workload-gate.ts';
import type { Registration } from './workload-registrations.ts';

/** One stream's source: it calls `changed`, as it was opened with, when there may be something new to say. */
export interface StreamSource<Response> {
  /** What is to be said now; undefined while it is not known. Throws the status to end with. */
  compose(workloads: readonly Registration[]): Response | undefined;
  close(): void;
}

export interface StreamPlan<Response> {
  open(changed: () => void): StreamSource<Response>;
  serialize(response: Response): Buffer;
}

/** Throws the status to refuse with. */
export function serveWorkloadStream<Request, Response>(
  call: ServerWritableStream<Request, Response>,
  { peer, key }: Admitted,
  { gate, plan, log }: { gate: WorkloadGate; plan: StreamPlan<Response>; log: Log },
): void {
  const closeStream = gate.openStream(key);
  let ended = false;
  let due: NodeJS.Immediate | undefined;
  let said = '';

  // Changes that come together are said together; to a reader that is behind, only the last one.
  const changed = () => {
    if (ended || due !== undefined) return;
    due = setImmediate(() => {
      due = undefined;
      if (call.writableNeedDrain) call.once('drain', changed);
      else say();
    });
  };
  const source = plan.open(changed);
  const unsubscribe = gate.subscribe(changed);
  const end = () => {
    if (ended) return;
    ended = true;
    clearImmediate(due);
    unsubscribe();
    source.close();
    closeStream();
  };
  const say = () => {
    try {
      // Asked again each time: the process may have ended, and registrations been withdrawn.
      const response = source.compose(gate.attest(peer));
      if (response === undefined) return;
      // Its digest: what was said holds private keys.
      const digest = createHash('sha256').update(plan.serialize(response)).digest('base64');
      if (digest === said) return;
      said = digest;
      call.write(response);
    } catch (error) {
      call.emit('error', statusOf(error, log));
    }
  };
  call.on('cancelled', end);
  call.on('error', end);
  call.on('close', end);
  changed();
}
