// Connections as counters: each is counted where it goes into the ledger, so that nothing depends on which entries find room there, and several workers are one sum.

import { BoundedSeries } from './bounded-series.ts';
import type { OpenConnection, Sighting, SightingSink } from './ledger.ts';
import { isUnproven, type LedgerFacts } from './ledger-entry.ts';
import type { Labels, MetricFamily, Sample } from './metrics-text.ts';

/** Each makes two series, and a third where something was cut. */
const MAX_FLOWS = 250;
/** All labels are from closed sets; this is for codes that are yet to come. */
const MAX_REFUSALS = 100;

const UNKNOWN = 'unknown';
const OTHER = 'other';
/** What the response_flags of Istio's ztunnel say. */
const FLAGS = { none: '-', denied: 'DENY' } as const;

interface Flow {
  opened: number;
  closed: number;
  cut: number;
}

export class TrafficCounters implements SightingSink {
  readonly #into: SightingSink;
  readonly #flows = new BoundedSeries<Flow>(MAX_FLOWS, () => ({ opened: 0, closed: 0, cut: 0 }));
  readonly #refusals = new BoundedSeries(MAX_REFUSALS, () => ({ count: 0 }));
  readonly #plaintext = new BoundedSeries(MAX_REFUSALS, () => ({ count: 0 }));
  readonly #open = { inbound: 0, outbound: 0 };

  /** Passes everything on. */
  constructor(into: SightingSink) {
    this.#into = into;
  }

  join(sighting: Sighting): OpenConnection {
    const { key, end } = this.#into.join(sighting);
    const direction = directionOf(sighting.facts);
    const flow = this.#flowOf(sighting);
    flow.opened++;
    this.#open[direction]++;
    this.#countPlaintext(sighting);
    return {
      key,
      end: (cut) => {
        end(cut);
        this.#open[direction]--;
        if (cut === undefined) flow.closed++;
        else {
          flow.cut++;
          this.#countRefusal(cut.facts);
        }
      },
    };
  }

  note(sighting: Sighting): void {
    this.#into.note(sighting);
    this.#countRefusal(sighting.facts);
    if (isUnproven(sighting.facts)) this.#countPlaintext(sighting);
  }

  families(): MetricFamily[] {
    const flows = [...this.#flows.values()];
    const closed = flows.flatMap(({ labels, counts }): Sample[] => [
      { labels: { ...labels, response_flags: FLAGS.none }, value: counts.closed },
      ...(counts.cut === 0 ? [] : [{ labels: { ...labels, response_flags: FLAGS.denied }, value: counts.cut }]),
    ]);
    return [
      {
        name: 'istio_tcp_connections_opened_total',
        type: 'counter',
        help: 'Connections that were joined with the application or its destination.',
        samples: flows.map(({ labels, counts }) => ({ labels: { ...labels, response_flags: FLAGS.none }, value: counts.opened })),
      },
      {
        name: 'istio_tcp_connections_closed_total',
        type: 'counter',
        help: 'Of those, the ones that have ended; DENY: cut, because policy, trust or revocation did not allow them any more.',
        samples: closed,
      },
      {
        name: 'handfast_connections_open',
        type: 'gauge',
        help: 'Connections that are joined now.',
        samples: Object.entries(this.#open).map(([direction, value]) => ({ labels: { direction }, value })),
      },
      {
        name: 'handfast_connections_refused_total',
        type: 'counter',
        help: 'Connections that were refused, failed or were cut, by the code that their records have.',
        samples: [...this.#refusals.values()].map(({ labels, counts }) => ({ labels, value: counts.count })),
      },
      {
        name: 'handfast_plaintext_connections_total',
        type: 'counter',
        help: 'Connections that were let through without mTLS; expected: the mode of the port is DISABLE.',
        samples: [...this.#plaintext.values()].map(({ labels, counts }) => ({ labels, value: counts.count })),
      },
    ];
  }

  #flowOf({ facts, ownId }: Sighting): Flow {
    const { direction, transport, peerId, port, service } = facts;
    const told = { reporter: reporterOf(facts), connection_security_policy: securityOf(transport) };
    return this.#flows.of(`${direction}\n${told.connection_security_policy}\n${peerId}\n${ownId}\n${port}\n${service}`, {
      own: () => flowLabels(told, facts, ownId),
      other: () => ({
        ...told,
        source_principal: OTHER,
        destination_principal: OTHER,
        destination_service: OTHER,
        destination_service_namespace: OTHER,
        destination_port: OTHER,
        request_protocol: 'tcp',
      }),
    });
  }

  #countRefusal({ direction, transport, outcome, code }: LedgerFacts): void {
    const labels = (of: string) => ({ direction, outcome, code: of, transport });
    this.#refusals.of(`${direction}\n${outcome}\n${code}\n${transport}`, { own: () => labels(code), other: () => labels(OTHER) }).count++;
  }

  #countPlaintext({ facts, expected }: Sighting): void {
    const { direction, transport, peerRegisteredId } = facts;
    if (transport !== 'plaintext' && transport !== 'passthrough-tls') return;
    const peer = peerRegisteredId === '' ? 'unregistered' : 'registered';
    const labels = () => ({ direction, transport, peer, expected: String(expected) });
    this.#plaintext.of(`${direction}\n${transport}\n${peer}\n${expected}`, { own: labels, other: labels }).count++;
  }
}

function directionOf({ direction }: LedgerFacts): 'inbound' | 'outbound' {
  return direction === 'inbound' ? 'inbound' : 'outbound';
}

function reporterOf(facts: LedgerFacts): 'source' | 'destination' {
  return directionOf(facts) === 'inbound' ? 'destination' : 'source';
}

function securityOf(transport: string): 'mutual_tls' | 'none' | 'unknown' {
  if (transport === 'mtls') return 'mutual_tls';
  return transport === 'plaintext' ? 'none' : 'unknown';
}

/** As Istio has them, in an order that does not change. */
function flowLabels(told: { reporter: string; connection_security_policy: string }, facts: LedgerFacts, ownId: string): Labels {
  const own = ownId === '' ? UNKNOWN : ownId;
  const peer = facts.peerId === '' ? UNKNOWN : facts.peerId;
  const [source, destination] = told.reporter === 'destination' ? [peer, own] : [own, peer];
  const slash = facts.service.indexOf('/');
  return {
    ...told,
    source_principal: source,
    destination_principal: destination,
    destination_service: slash < 0 ? UNKNOWN : facts.service.slice(slash + 1),
    destination_service_namespace: slash < 0 ? UNKNOWN : facts.service.slice(0, slash),
    destination_port: String(facts.port),
    request_protocol: 'tcp',
  };
}
