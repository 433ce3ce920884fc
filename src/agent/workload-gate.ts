// What every call to the Workload API passes before it is answered: its header, who makes it, how often, and which workloads that may be.

import { type Metadata, status } from '@grpc/grpc-js';
import type { PeerCredentials } from '../net/peer-credentials.ts';
import type { Log } from '../observe/log.ts';
import { KeyedLimits, type MonotonicClock, type Rate } from '../rate-limit.ts';
import { callerKey, callerOf } from '../wire/caller.ts';
import { statusError } from '../wire/grpc.ts';
import type { Attestor } from './attestor.ts';
import type { Registration } from './workload-registrations.ts';

/** For one peer: calls of any kind in time, and streams at once. */
export interface WorkloadApiLimits {
  readonly calls: Rate;
  readonly streams: number;
}

export const defaultWorkloadApiLimits: WorkloadApiLimits = { calls: { burst: 200, perSecond: 50 }, streams: 128 };

/** Refusals that are logged, of one peer: it may come back as often as its calls are allowed. */
const REPORTS: Rate = { burst: 5, perSecond: 0.2 };

/** A call that may be answered. */
export interface Admitted {
  readonly peer: PeerCredentials;
  readonly key: string;
  readonly workloads: readonly Registration[];
}

export class WorkloadGate {
  readonly #attestor: Attestor;
  readonly #log: Log;
  readonly #calls: KeyedLimits;
  readonly #reports: KeyedLimits;
  readonly #maxStreams: number;
  readonly #streams = new Map<string, number>();

  constructor(options: { attestor: Attestor; log: Log; limits: WorkloadApiLimits; clock?: MonotonicClock | undefined }) {
    const { attestor, log, limits, clock } = options;
    this.#attestor = attestor;
    this.#log = log;
    this.#calls = new KeyedLimits(limits.calls, clock === undefined ? {} : { now: clock });
    this.#reports = new KeyedLimits(REPORTS, clock === undefined ? {} : { now: clock });
    this.#maxStreams = limits.streams;
  }

  /** Throws the status to refuse with. */
  admit(call: { metadata: Metadata; getPeer(): string }): Admitted {
    // The standard's guard against requests that a workload was tricked into forwarding: a header that those cannot carry.
    const header = call.metadata.get('workload.spiffe.io');
    if (header.length !== 1 || header[0] !== 'true') {
      throw statusError(status.INVALID_ARGUMENT, 'send the metadata workload.spiffe.io: true with each call');
    }
    const caller = callerOf(call);
    if (caller?.kind !== 'unix') throw statusError(status.PERMISSION_DENIED, 'the caller is not known');
    return this.admitPeer(caller.peer);
  }

  /** The same for a request that was not made by gRPC. */
  admitPeer(peer: PeerCredentials): Admitted {
    const key = callerKey({ kind: 'unix', peer });
    const waitMs = this.#calls.take(key);
    if (waitMs > 0) throw statusError(status.RESOURCE_EXHAUSTED, `too many calls: the next is allowed in ${waitMs} ms`);
    return { peer, key, workloads: this.attest(peer) };
  }

  /** The workloads that this process may be, at least one. Throws the status to refuse with. */
  attest(peer: PeerCredentials): readonly Registration[] {
    const workloads = this.#attestor.workloadsOf(peer);
    if (workloads.length > 0) return workloads;
    const { pid, uid, networkNamespace, cgroup } = peer;
    const alive = peer.alive();
    if (this.#reports.take(callerKey({ kind: 'unix', peer })) === 0) {
      this.#log.warn({ pid, uid, networkNamespace, cgroup, alive }, 'Workload API: a process that matches no registration was refused');
    }
    throw statusError(status.PERMISSION_DENIED, alive ? 'no workload is registered for this process' : 'the calling process has ended');
  }

  /** Counts a stream; call the answer once when it has ended. Throws the status to refuse with. */
  openStream(key: string): () => void {
    const open = this.#streams.get(key) ?? 0;
    if (open >= this.#maxStreams) throw statusError(status.RESOURCE_EXHAUSTED, `${open} streams are open: end one first`);
    this.#streams.set(key, open + 1);
    return () => {
      const left = (this.#streams.get(key) ?? 1) - 1;
      if (left === 0) this.#streams.delete(key);
      else this.#streams.set(key, left);
    };
  }

  subscribe(subscriber: () => void): () => void {
    return this.#attestor.subscribe(subscriber);
  }
}
