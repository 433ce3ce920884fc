// Connections to the tunnels' port are few and live long: hashed by the kernel they would leave a core idle, so the main thread accepts them and deals them out.

import type { Socket } from 'node:net';
import { detach } from '../net/hand-over.ts';
import type { WorkerThread } from './worker-thread.ts';

/** To whoever has fewest; of several, to the one that was not served last. Throws, with the connection closed, when nobody can take it. */
export function dealTunnel(socket: Socket, workers: readonly WorkerThread[], last: WorkerThread | undefined): WorkerThread {
  socket.on('error', () => undefined);
  const after = last === undefined ? 0 : workers.indexOf(last) + 1;
  const inTurn = [...workers.slice(after), ...workers.slice(0, after)].filter(({ isListening }) => isListening);
  const [first, ...others] = inTurn;
  if (first === undefined) {
    socket.destroy();
    throw new Error('no worker is there to take a tunnel');
  }
  const fewest = others.reduce((best, worker) => (worker.tunnels < best.tunnels ? worker : best), first);
  const duplicate = detach(socket);
  if (duplicate === undefined) throw new Error('no descriptor to hand a tunnel to a worker with');
  fewest.takeTunnel(duplicate);
  return fewest;
}
