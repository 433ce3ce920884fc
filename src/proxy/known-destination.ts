// Outbound's first step to a new address: the agent says who is there, and until it has nobody is dialled, in whatever way.

import type { Socket } from 'node:net';
import { HandfastError } from '../errors.ts';
import type { Governed, Located } from './connection.ts';
import { show } from './connection-record.ts';
import { govern, type PipelineContext } from './context.ts';

/** As `govern`, by the first snapshot that knows the destination. Throws DESTINATION_UNANSWERED when there is none within the time that a dial may take, UNAVAILABLE when the client is gone before. */
export async function governKnown(located: Located, { socket, context }: { socket: Socket; context: PipelineContext }): Promise<Governed> {
  const { originalDestination } = located;
  const timeoutMs = context.settings.dialTimeoutMs;
  const until = performance.now() + timeoutMs;
  for (;;) {
    const governed = govern(located, context);
    if (governed.mesh.knows(originalDestination.address)) return governed;
    const leftMs = until - performance.now();
    if (leftMs <= 0)
      throw new HandfastError(
        'DESTINATION_UNANSWERED',
        `${show(originalDestination)}: the agent has not said within ${timeoutMs} ms who is there, so nobody is dialled; does the agent run and hear from control, or does this pod speak to thousands of addresses at once?`,
      );
    await context.known.wait(originalDestination.address, { socket, leftMs });
    if (socket.destroyed) throw new HandfastError('UNAVAILABLE', 'the client is gone');
  }
}
