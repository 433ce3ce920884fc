// What the main thread and its workers say to one another: plain data that survives the structured clone.

import type { ResourceChange } from '../discovery/resource-cache.ts';
import type { ErrorCode } from '../errors.ts';
import type { Sighting } from '../observe/ledger.ts';
import type { LogLevel } from '../observe/log.ts';
import type { PipelineSettings } from '../proxy/context.ts';
import type { ConnectionTracker } from '../proxy/tracker.ts';
import type { RevocationList } from '../spiffe/crl.ts';

/** What a worker is and does not change; `workerData`. */
export interface WorkerSetup {
  /** From 1. */
  readonly worker: number;
  readonly settings: PipelineSettings;
  /** `inbound` and `outbound` are shared by all workers; 0 is for the first alone. The others are the main thread's. */
  readonly ports: { readonly inbound: number; readonly outbound: number; readonly tunnel: number; readonly readiness: number };
  readonly drainTimeoutMs: number;
  readonly logLevel: LogLevel;
}

/** An Identity as its PEM texts; `bundles` has the own trust domain's first. The key never leaves the process. */
export interface IdentityTexts {
  readonly chain: string;
  readonly key: string;
  readonly bundles: readonly { readonly trustDomain: string; readonly pem: string }[];
}

export interface MeshChange {
  readonly typeUrl: string;
  readonly change: ResourceChange;
}

/** All that is in force: what a worker begins with, and what of it is replaced later. `mesh` is changes, in order. */
export interface WorkerState {
  readonly identity?: IdentityTexts;
  readonly revocations?: RevocationList;
  readonly mesh?: readonly MeshChange[];
}

export type ToWorker =
  | { readonly kind: 'begin'; readonly state: WorkerState }
  | { readonly kind: 'change'; readonly state: WorkerState }
  /** A connection to the tunnels' port: `fd` is a duplicate that is the worker's from now on. */
  | { readonly kind: 'tunnel'; readonly fd: number; readonly nth: number }
  | { readonly kind: 'stop' };

/** What was seen of equal connections since the last message. */
export interface Seen {
  readonly sighting: Sighting;
  /** Ended before they were joined. */
  noted: number;
  joined: number;
  /** Joined ones that have ended by themselves. */
  ended: number;
  /** Joined ones that were cut, as they were seen then. */
  cuts: Sighting[];
}

export type LivePeers = ReturnType<ConnectionTracker['livePeers']>;

/** Addresses that a worker's connections use from now on, or no longer, and those that it asks for. */
export interface AddressUse {
  readonly held: readonly string[];
  readonly released: readonly string[];
  readonly asked: readonly string[];
}

export type FromWorker =
  | { readonly kind: 'listening'; readonly ports: { readonly inbound: number; readonly outbound: number } }
  /** It could not start, and ends. */
  | { readonly kind: 'failed'; readonly code: ErrorCode | undefined; readonly reason: string }
  /** A sign of life; `peers` where they have changed. */
  | { readonly kind: 'status'; readonly missing: readonly string[]; readonly peers?: LivePeers }
  | { readonly kind: 'seen'; readonly seen: readonly Seen[] }
  | { readonly kind: 'addresses'; readonly use: AddressUse }
  /** Whole lines. */
  | { readonly kind: 'log'; readonly lines: string }
  /** The duplicate that was sent as the nth: descriptors' numbers come again. */
  | { readonly kind: 'attached'; readonly nth: number }
  | { readonly kind: 'tunnel-closed' }
  /** Everything was said before this. */
  | { readonly kind: 'stopped' };
