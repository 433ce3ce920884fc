// Who is connected, by the token they hold: streams with the same token share one certificate, and nobody's certificate outlives its streams.

import { createHash } from 'node:crypto';
import { HandfastError } from '../errors.ts';
import type { NodeTrust } from '../node/node-trust.ts';
import type { Log } from '../observe/log.ts';
import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import { SessionSecrets } from './session-secrets.ts';
import { type RotationPlan, SvidRotator, type SvidSigner } from './svid-rotator.ts';
import { type SecretsFrom, WorkloadSecrets } from './workload-secrets.ts';

/** A proven workload's certificate, held until `release`. */
export interface WorkloadSession {
  /** Rejects when the token or the first certificate is refused. */
  readonly ready: Promise<Identity>;
  readonly identity: Snapshot<Identity>;
  /** What SDS serves of it. */
  readonly secrets: SessionSecrets;
  /** What control has for it, by name; undefined where there is no control that has any. */
  readonly workloadSecrets: WorkloadSecrets | undefined;
  release(): void;
}

interface Session {
  readonly rotator: SvidRotator;
  readonly secrets: SessionSecrets;
  readonly workloadSecrets: WorkloadSecrets | undefined;
  holders: number;
}

interface SessionDeps {
  readonly signer: SvidSigner;
  readonly trust: Snapshot<NodeTrust>;
  readonly plan: RotationPlan;
  readonly secretsFrom?: SecretsFrom;
  readonly log: Log;
}

/** More distinct tokens than any node has pods. */
const MAX_SESSIONS = 10_000;

export class WorkloadSessions {
  readonly #deps: SessionDeps;
  readonly #sessions = new Map<string, Session>();

  constructor(deps: SessionDeps) {
    this.#deps = deps;
  }

  /** The caller awaits `ready`: until the CA has proven the token, nothing is known of its holder. Throws UNAVAILABLE when there are too many. */
  acquire(token: string): WorkloadSession {
    // By digest: the map's keys must not be credentials.
    const key = createHash('sha256').update(token).digest('base64');
    const session = this.#sessions.get(key) ?? this.#open(key, token);
    session.holders++;
    const { rotator, secrets, workloadSecrets } = session;
    let released = false;
    return {
      ready: rotator.ready,
      identity: rotator.identity,
      secrets,
      workloadSecrets,
      release: () => {
        if (released) return;
        released = true;
        session.holders--;
        if (session.holders > 0) return;
        rotator.stop();
        workloadSecrets?.stop();
        if (this.#sessions.get(key) === session) this.#sessions.delete(key);
      },
    };
  }

  /** The identities served now. */
  get identities(): readonly Identity[] {
    return [...this.#sessions.values()].flatMap(({ rotator }) => rotator.identity.current ?? []);
  }

  stop(): void {
    for (const { rotator, workloadSecrets } of this.#sessions.values()) {
      rotator.stop();
      workloadSecrets?.stop();
    }
    this.#sessions.clear();
  }

  #open(key: string, token: string): Session {
    if (this.#sessions.size >= MAX_SESSIONS) throw new HandfastError('UNAVAILABLE', `more than ${MAX_SESSIONS} workloads on one agent`);
    const rotator = new SvidRotator({ token, ...this.#deps });
    const secrets = new SessionSecrets({ identity: rotator.identity, trust: this.#deps.trust });
    const { secretsFrom: from, trust, log } = this.#deps;
    const workloadSecrets = from === undefined ? undefined : new WorkloadSecrets({ from, identity: rotator.identity, trust, log });
    const session = { rotator, secrets, workloadSecrets, holders: 0 };
    this.#sessions.set(key, session);
    // A refused token is forgotten at once, so that the next stream asks the CA again.
    rotator.ready.catch(() => {
      if (this.#sessions.get(key) === session) this.#sessions.delete(key);
    });
    return session;
  }
}
