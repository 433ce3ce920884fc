// An agent alone with its workload, in its pod: towards the CA and control it is that workload, by the certificate that it has for the workload's token.

import { Backoff } from '../backoff.ts';
import { AlarmClock } from '../discovery/alarm-clock.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { WorkloadSession, WorkloadSessions } from './workload-sessions.ts';

export interface OwnIdentityOptions {
  readonly sessions: WorkloadSessions;
  readonly token: Snapshot<string>;
  /** Takes each certificate. */
  readonly identity: Snapshot<Identity>;
  readonly log: Log;
  readonly signal: AbortSignal;
}

const FOR_EVER_MS = 2 ** 31 - 1;

/** Until the signal aborts. A newer token takes the place of the one before when it has been proven. */
export async function followOwnIdentity({ sessions, token, identity, log, signal }: OwnIdentityOptions): Promise<void> {
  const clock = new AlarmClock();
  const backoff = new Backoff({ baseMs: 500, maxMs: 30_000 });
  const unsubscribe = token.subscribe(() => clock.ring());
  let held: { readonly token: string; end(): void } | undefined;
  while (!signal.aborted) {
    const wanted = token.current ?? '';
    if (held?.token === wanted) {
      await clock.wait(FOR_EVER_MS, signal);
      continue;
    }
    let session: WorkloadSession | undefined;
    try {
      session = sessions.acquire(wanted);
      await session.ready;
      const next = heldBy(session, { token: wanted, identity });
      held?.end();
      held = next;
      backoff.reset();
    } catch (error) {
      session?.release();
      const waitMs = backoff.next();
      log.error({ reason: messageOf(error), retryInMs: Math.round(waitMs) }, 'no certificate for the token of this pod');
      await clock.wait(waitMs, signal);
    }
  }
  unsubscribe();
  held?.end();
}

/** Every certificate of the session, until `end`. */
function heldBy(session: WorkloadSession, { token, identity }: { token: string; identity: Snapshot<Identity> }) {
  const unsubscribe = session.identity.subscribe((next) => identity.replace(next));
  if (session.identity.current !== undefined) identity.replace(session.identity.current);
  return {
    token,
    end: () => {
      unsubscribe();
      session.release();
    },
  };
}
