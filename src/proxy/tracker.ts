// Every open connection, from accept to its one record: counted, re-judged when the mesh changes, drained at the end.

import type { ErrorCode } from '../errors.ts';
import type { ByteCounts } from '../http/application-agent.ts';
import type { RequestEnd } from '../http/http-connection.ts';
import { Ledger, type SightingSink } from '../observe/ledger.ts';
import type { Log } from '../observe/log.ts';
import { decideRevocation, decideTrust } from '../policy/decide.ts';
import { canonicalIp } from '../policy/ip.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Endpoint } from '../policy/model.ts';
import type { Verdict } from '../policy/verdict.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import type { CallerNames } from './caller-names.ts';
import type { Direction } from './connection.ts';
import { connectionRecord } from './connection-record.ts';
import { NamedSightings, type SeenConnection } from './named-sightings.ts';
import { requestRecord } from './request-record.ts';
import { type Ending, Tracked, type TrackedEvents } from './tracked.ts';

export class ConnectionTracker {
  /** Who spoke to whom, also when it is over; empty where sightings go to another. */
  readonly ledger: Ledger;
  /** With its place in the ledger, once it is joined. */
  readonly #open = new Map<Tracked, SeenConnection | undefined>();
  readonly #perUpstream = new Map<string, number>();
  readonly #sightings: NamedSightings;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #events: TrackedEvents = {
    onJoined: (tracked) => this.#open.set(tracked, this.#sightings.join(tracked.known)),
    onEnd: (...end) => this.#finish(...end),
    onForgotten: (tracked) => this.#forget(tracked),
  };
  #nextId = 1;
  #idle: (() => void) | undefined;

  constructor(options: { log: Log; now: () => number; names: CallerNames; sightings?: SightingSink | undefined }) {
    this.#log = options.log;
    this.#now = options.now;
    this.ledger = new Ledger(options);
    this.#sightings = new NamedSightings(options.sightings ?? this.ledger, options.names);
  }

  get size(): number {
    return this.#open.size;
  }

  /** A connection from somewhere: a socket that was accepted, or a stream of a tunnel. */
  open(direction: Direction, from: { readonly remoteAddress?: string | undefined; readonly remotePort?: number | undefined }): Tracked {
    const downstream = { address: canonicalIp(from.remoteAddress ?? '0.0.0.0'), port: from.remotePort ?? 0 };
    const tracked = new Tracked({ id: this.#nextId++, direction, downstream, openedAt: this.#now() }, this.#events);
    this.#open.set(tracked, undefined);
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

  /** Ends what the new snapshot no longer allows, of both directions or of one. */
  rejudge(mesh: MeshSnapshot, direction?: Direction): void {
    for (const tracked of [...this.#open.keys()])
      if (direction === undefined || tracked.known.direction === direction) tracked.judgeAgain(mesh);
  }

  /** Ends what was authenticated by a certificate that is revoked now. */
  cutRevoked(list: RevocationList): void {
    this.#judgePeers((peer) => decideRevocation(peer, list));
  }

  /** Ends what was authenticated by a chain to a root that is not trusted any more. */
  cutUntrusted(bundles: TrustBundles): void {
    // Many connections have one peer, and each walk up its chain verifies signatures.
    const verdicts = new Map<string, Verdict>();
    this.#judgePeers((peer) => {
      const key = peer.certificates()[0]?.fingerprint256 ?? '';
      const verdict = verdicts.get(key) ?? decideTrust(peer, bundles);
      verdicts.set(key, verdict);
      return verdict;
    });
  }

  #judgePeers(judge: (peer: VerifiedPeer) => Verdict): void {
    for (const tracked of [...this.#open.keys()]) {
      const { peer } = tracked.known;
      const verdict = peer === undefined ? undefined : judge(peer);
      if (verdict?.allowed === false) tracked.cut(verdict.code, verdict.reason);
    }
  }

  /** Open connections by the certificate their peer proved itself with. */
  livePeers(): { direction: Direction; spiffeId: string; serial: string; connections: number }[] {
    const byPeer = new Map<string, { direction: Direction; spiffeId: string; serial: string; connections: number }>();
    for (const { known } of this.#open.keys()) {
      if (known.peer === undefined) continue;
      const { direction, peer } = known;
      const key = `${direction} ${peer.serial} ${peer.id.uri}`;
      const entry = byPeer.get(key) ?? { direction, spiffeId: peer.id.uri, serial: peer.serial, connections: 0 };
      entry.connections++;
      byPeer.set(key, entry);
    }
    return [...byPeer.values()];
  }

  /** Resolves when every connection has ended, or when the time is over. */
  async idle(timeoutMs: number): Promise<void> {
    if (this.#open.size === 0) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#idle = resolve;
      timer = setTimeout(resolve, timeoutMs);
    });
    clearTimeout(timer);
  }

  /** Ends every connection. */
  cutAll(code: ErrorCode, reason: string): void {
    for (const tracked of [...this.#open.keys()]) tracked.cut(code, reason);
  }

  /** What waits for a caller's name is noted without it. */
  close(): void {
    this.#sightings.close();
  }

  #finish(tracked: Tracked, ending: Ending, application: ByteCounts | undefined): void {
    const joined = this.#open.get(tracked);
    this.#open.delete(tracked);
    if (joined === undefined) this.#sightings.note(tracked.known, ending);
    // What was joined and ended by itself is in the ledger already.
    else joined.end(ending.decision === 'cut' ? { known: tracked.known, ending } : undefined);
    const level = ending.decision === 'allowed' ? 'info' : 'warn';
    if (this.#log.isLevelEnabled(level))
      this.#log[level](connectionRecord(tracked.known, { ending, application, now: this.#now() }), 'connection');
    if (this.#open.size === 0) this.#idle?.();
  }

  /** One request of a connection has ended. */
  noteRequest({ known }: Tracked, end: RequestEnd, shadow: Verdict | undefined): void {
    const level = end.decision === 'allowed' ? 'info' : 'warn';
    if (this.#log.isLevelEnabled(level)) this.#log[level](requestRecord(known, end, shadow), 'request');
  }

  #forget(tracked: Tracked): void {
    this.#open.delete(tracked);
    if (this.#open.size === 0) this.#idle?.();
  }
}

function keyOf(endpoint: Endpoint): string {
  return `${endpoint.address} ${endpoint.port}`;
}
