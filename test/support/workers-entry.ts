// A worker whose connections "were going" where the test says, and which dies when the test says.

import { BroadcastChannel, workerData } from 'node:worker_threads';
import type { Endpoint } from '../../src/policy/model.ts';
import { runWorker } from '../../src/workers/run-worker.ts';

/** Travels in the settings, which are cloned whole. */
export interface WorkerTestSettings {
  readonly destination: Endpoint;
  /** Where peers take tunnels. */
  readonly tunnelPort: number;
  readonly channel: string;
}

export interface Order {
  readonly worker: number;
  readonly how: 'throw' | 'fill memory' | 'hang';
}

/** Longer than a worker may be silent. */
const HANG_MS = 7_000;

const { settings, worker } = workerData as { settings: { test: WorkerTestSettings }; worker: number };
const { destination, tunnelPort, channel } = settings.test;

const orders = new BroadcastChannel(channel);
orders.onmessage = (event) => {
  const order = (event as { data: Order }).data;
  if (order.worker !== worker) return;
  if (order.how === 'throw') throw new Error('the test wants it dead');
  if (order.how === 'hang') {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, HANG_MS);
    return;
  }
  const hoard: string[][] = [];
  for (;;) hoard.push(Array.from({ length: 10_000 }, (_, index) => `${index} of ${hoard.length}`));
};
orders.unref();

runWorker({ originalDestination: () => destination, tunnelPortOf: () => tunnelPort });
