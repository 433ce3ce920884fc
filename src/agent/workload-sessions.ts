// Who is connected, by the token they hold: streams with the same token share one certificate, and nobody's certificate outlives its streams.

import { createHash } from 'node:crypto';
import type { CaClient } from '../ca/client.ts';
import { HandfastError } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { type RotationPlan, SvidRotator } from './svid-rotator.ts';

/** A proven workload's rotator, held until `release`. */
export interface WorkloadSession {
  readonly rotator: SvidRotator;
  release(): void;
}

/** More distinct tokens than any node has pods. */
const MAX_SESSIONS = 10_000;

export class WorkloadSessions {
  readonly #deps: { ca: CaClient; plan: RotationPlan; log: Log };
  readonly #sessions = new Map<string, { rotator: SvidRotator; holders: number }>();

  constructor(deps: { ca: CaClient; plan: RotationPlan; log: Log }) {
    this.#deps = deps;
  }

  /** The caller awaits `rotator.ready`: until the CA has proven the token, nothing is known of its holder. */
  acquire(token: string): WorkloadSession {
    // By digest: the map's keys must not be credentials.
    const key = createHash('sha256').update(token).digest('base64');
    let session = this.#sessions.get(key);
    if (session === undefined) {
      if (this.#sessions.size >= MAX_SESSIONS) throw new HandfastError('UNAVAILABLE', `more than ${MAX_SESSIONS} workloads on one agent`);
      session = { rotator: new SvidRotator({ token, ...this.#deps }), holders: 0 };
      this.#sessions.set(key, session);
      // A refused token is forgotten at once, so that the next stream asks the CA again.
      const refused = session;
      refused.rotator.ready.catch(() => {
        if (this.#sessions.get(key) === refused) this.#sessions.delete(key);
      });
    }
    session.holders++;
    const held = session;
    let released = false;
    return {
      rotator: held.rotator,
      release: () => {
        if (released) return;
        released = true;
        held.holders--;
        if (held.holders > 0) return;
        held.rotator.stop();
        if (this.#sessions.get(key) === held) this.#sessions.delete(key);
      },
    };
  }

  stop(): void {
    for (const { rotator } of this.#sessions.values()) rotator.stop();
    this.#sessions.clear();
  }
}
