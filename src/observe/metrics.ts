// What a sidecar shows of itself to Prometheus: its traffic, its identity, its ledger and its process, as one text.

import type { Snapshot } from '../snapshot.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { EventLoopLag } from './event-loop-lag.ts';
import type { Ledger } from './ledger.ts';
import { type MetricFamily, metricsText, single } from './metrics-text.ts';
import type { TrafficCounters } from './metrics-traffic.ts';

export interface MetricsOptions {
  readonly traffic: Pick<TrafficCounters, 'families'>;
  readonly ledger: Pick<Ledger, 'dropped' | 'forgotten' | 'tripped'>;
  readonly identity: Snapshot<Identity>;
  readonly revocations: Snapshot<RevocationList>;
  /** Why new connections cannot be served; empty when they can. */
  readonly missing: () => readonly string[];
  readonly workers: number;
  readonly version: string;
  /** Unix milliseconds. */
  readonly now: () => number;
}

/** However many ask, the text is made once in this time. */
const KEEP_MS = 1_000;

export class Metrics {
  readonly #options: MetricsOptions;
  readonly #lag = new EventLoopLag();
  readonly #unsubscribe: () => void;
  #rotations = 0;
  #made: { readonly text: string; readonly at: number } | undefined;

  constructor(options: MetricsOptions) {
    this.#options = options;
    this.#unsubscribe = options.identity.subscribe((next, previous) => {
      // A new trust bundle comes with the SVID that was there.
      if (previous !== undefined && previous.svid.chainPem !== next.svid.chainPem) this.#rotations++;
    });
  }

  text(): string {
    const at = this.#options.now();
    if (this.#made === undefined || at < this.#made.at || at - this.#made.at >= KEEP_MS)
      this.#made = { text: metricsText(this.#families()), at };
    return this.#made.text;
  }

  close(): void {
    this.#unsubscribe();
    this.#lag.close();
  }

  #families(): MetricFamily[] {
    return [...this.#options.traffic.families(), ...this.#identity(), ...this.#ledger(), ...this.#process()];
  }

  #identity(): MetricFamily[] {
    const { identity, revocations, missing } = this.#options;
    const svid = identity.current?.svid;
    const list = revocations.current;
    return [
      gauge('handfast_ready', 'Whether new connections can be served, as /healthz/ready says.', missing().length === 0 ? 1 : 0),
      {
        name: 'handfast_identity_expiry_timestamp_seconds',
        type: 'gauge',
        help: 'When the certificate in force expires, in Unix time.',
        samples: svid === undefined ? [] : [{ labels: { principal: svid.id.uri }, value: svid.notAfter / 1_000 }],
      },
      counter('handfast_identity_rotations_total', 'How often the certificate has been replaced by another.', this.#rotations),
      gauge(
        'handfast_revocation_list_entries',
        'Certificates and identities that are revoked.',
        list === undefined ? undefined : list.serials.size + list.blockedIds.size,
      ),
      gauge(
        'handfast_revocation_list_next_update_timestamp_seconds',
        'When a newer revocation list is due, in Unix time.',
        list === undefined || list.nextUpdate === 0 ? undefined : list.nextUpdate / 1_000,
      ),
    ];
  }

  #ledger(): MetricFamily[] {
    const { dropped, forgotten, tripped } = this.#options.ledger;
    return [
      counter('handfast_ledger_dropped_total', 'Connections that were let in unproven and found no room in the ledger.', dropped),
      counter('handfast_ledger_forgotten_total', 'Other connections that found no room in the ledger, or made room.', forgotten),
      counter('handfast_tripwire_total', 'Plaintext connections of identities that have spoken mTLS to the same port before.', tripped),
    ];
  }

  #process(): MetricFamily[] {
    const { version, workers } = this.#options;
    const { user, system } = process.cpuUsage();
    const lag = this.#lag.take();
    return [
      {
        name: 'handfast_build_info',
        type: 'gauge',
        help: 'Always 1; what is running.',
        samples: [{ labels: { version, node: process.versions.node }, value: 1 }],
      },
      gauge('handfast_workers', 'Threads that serve connections.', workers),
      counter('process_cpu_seconds_total', 'CPU time of all threads, in seconds.', (user + system) / 1e6),
      gauge('process_resident_memory_bytes', 'Resident memory in bytes.', process.memoryUsage.rss()),
      gauge('process_start_time_seconds', 'When the process began, in Unix time.', performance.timeOrigin / 1_000),
      gauge(
        'nodejs_eventloop_lag_mean_seconds',
        'How late the event loop of the main thread was since the scrape before, on average.',
        lag?.mean,
      ),
      gauge('nodejs_eventloop_lag_max_seconds', 'How late it was at most.', lag?.max),
    ];
  }
}

function gauge(name: string, help: string, value: number | undefined): MetricFamily {
  return single({ name, type: 'gauge', help }, value);
}

function counter(name: string, help: string, value: number): MetricFamily {
  return single({ name, type: 'counter', help }, value);
}
