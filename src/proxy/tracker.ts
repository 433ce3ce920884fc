// Every open connection, from accept to its one record: counted, re-judged when the mesh changes, drained at the end.

import type { Socket } from 'node:net';
import type { Log } from '../observe/log.ts';
import { canonicalIp } from '../policy/ip.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Endpoint } from '../policy/model.ts';
import type { Direction } from './connection.ts';
import { connectionRecord } from './connection-record.ts';
import { type Ending, Tracked } from './tracked.ts';

/** How long a connection that was cut may take to end before nobody waits for it any more. */
const CUT_GRACE_MS = 2_000;

export class ConnectionTracker {
  readonly #open = new Set<Tracked>();
  readonly #perUpstream = new Map<string, number>();
  readonly #log: Log;
  readonly #now: () => number;
  #nextId = 1;
  #idle: (() => void) | undefined;

  constructor(options: { log: Log; now: () => number }) {
    this.#log = options.log;
    this.#now = options.now;
  }

  get size(): number {
    return this.#open.size;
  }

  open(direction: Direction, socket: Socket): Tracked {
    const downstream = { address: canonicalIp(socket.remoteAddress ?? '0.0.0.0'), port: socket.remotePort ?? 0 };
    const tracked = new Tracked({ id: this.#nextId++, direction, socket, downstream, openedAt: this.#now() }, (...end) =>
      this.#finish(...end),
    );
    this.#open.add(tracked);
    return tracked;
  }

  /** How many outbound connections go to an endpoint now. */
  load(endpoint: Endpoint): number {
    return this.#perUpstream.get(keyOf(endpoint)) ?? 0;
  }

  /** Counts a connection towards an endpoint until the returned function is called. */
  occupy(endpoint: Endpoint): () => void {
    const key = keyOf(endpoint);
    this.#perUpstream.set(key, this.load(endpoint) + 1);
    return () => {
      const left = (this.#perUpstream.get(key) ?? 1) - 1;
      if (left > 0) this.#perUpstream.set(key, left);
      else this.#perUpstream.delete(key);
    };
  }

  /** Ends what the new snapshot no longer allows. */
  rejudge(mesh: MeshSnapshot): void {
    for (const tracked of [...this.#open]) {
      const verdict = tracked.rejudge?.(mesh);
      if (verdict?.allowed === false) tracked.cut(verdict.code, verdict.reason);
    }
  }

  /** Resolves when every connection has ended; those still open at the deadline are cut. */
  async drain(timeoutMs: number): Promise<void> {
    if (this.#open.size === 0) return;
    const timers: NodeJS.Timeout[] = [];
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      timers.push(
        setTimeout(() => {
          for (const tracked of [...this.#open]) tracked.cut('DRAINING', 'the sidecar is stopping and its drain time is over');
        }, timeoutMs),
        // What does not end when it is cut must not keep the process.
        setTimeout(resolve, timeoutMs + CUT_GRACE_MS),
      );
    });
    for (const timer of timers) clearTimeout(timer);
  }

  #finish(tracked: Tracked, ending: Ending, application: Socket | undefined): void {
    this.#open.delete(tracked);
    const record = connectionRecord(tracked.known, { ending, application, now: this.#now() });
    if (ending.decision === 'allowed') this.#log.info(record, 'connection');
    else this.#log.warn(record, 'connection');
    if (this.#open.size === 0) this.#idle?.();
  }
}

function keyOf(endpoint: Endpoint): string {
  return `${endpoint.address} ${endpoint.port}`;
}
