// What a bench is told, and what it answers with: the shapes that handshake.ts and pair.ts share.

import type { Generator } from './load.ts';
import type { Peer } from './peers.ts';
import type { Performance, RoundsOptions } from './rounds.ts';

export interface ScenarioResult {
  readonly name: string;
  readonly performances: readonly Performance[];
}

export interface BenchOptions extends Pick<RoundsOptions, 'rounds' | 'seconds' | 'maxStealPercent' | 'progress'> {
  /** Our own. */
  readonly version: string;
  readonly peers: readonly Peer[];
  /** Concurrent handshakes. */
  readonly connections: number;
  /** Of the HTTP requests. */
  readonly generator: Generator;
}

export type Bench = (options: BenchOptions) => Promise<ScenarioResult[]>;
