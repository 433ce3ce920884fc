// The record of one exchange: how it ended, beside what it cost since it began.

import type { Caller } from './caller.ts';
import type { RequestEnd } from './http-connection.ts';

export type Ending = Omit<RequestEnd, 'bytesToApplication' | 'bytesFromApplication' | 'durationMs'>;

/** Begins to count; what it returns is called once. */
export function exchangeRecord({ connection, agent }: Pick<Caller, 'connection' | 'agent'>, now: () => number): (ending: Ending) => void {
  const startedAt = now();
  const { bytesWritten, bytesRead } = agent;
  return (ending) =>
    connection.ended({
      ...ending,
      bytesToApplication: agent.bytesWritten - bytesWritten,
      bytesFromApplication: agent.bytesRead - bytesRead,
      durationMs: now() - startedAt,
    });
}
