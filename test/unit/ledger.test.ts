// The sidecar's ledger: what it counts, what it may forget, and whom nobody can hide in it.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { inMessages, LedgerSender, type ReportedLedger } from '../../src/discovery/ledger-client.ts';
import { Ledger } from '../../src/observe/ledger.ts';
import type { LedgerFacts } from '../../src/observe/ledger-entry.ts';
import { LedgerReport } from '../../src/wire/gen/handfast/report/v1/report.ts';
import { facts, HOUR, HTTPBIN, SLEEP, T0 } from '../support/ledger-records.ts';

function open(max?: { inbound: number; outbound: number }) {
  const clock = { now: T0 };
  const said: { fields: object; message: string }[] = [];
  const log = { warn: (fields: object, message: string) => void said.push({ fields, message }) };
  const ledger = new Ledger({ log, now: () => clock.now, ...(max === undefined ? {} : { max }) });
  const sighting = (change: Partial<LedgerFacts> = {}) => ({ facts: facts(change), ownId: HTTPBIN, expected: false });
  return { ledger, clock, said, sighting };
}

const MTLS = { transport: 'mtls', peerId: SLEEP } as const;
const REFUSED = { outcome: 'refused', code: 'PLAINTEXT_UNDER_STRICT' } as const;

describe('an entry', () => {
  test('counts connections, those that are open, and when they were first and last seen', () => {
    const { ledger, clock, sighting } = open();
    const [first] = [ledger.join(sighting()), ledger.join(sighting())];
    clock.now += 5;
    first?.end();
    const [entry, ...others] = ledger.changedAfter(-1);
    assert.deepEqual(others, []);
    assert.deepEqual(entry, { ...facts(), connections: 2, open: 1, firstSeen: T0, lastSeen: T0 + 5, tripwire: false });
  });

  test('is one for all that is equal, and another for anything that is not', () => {
    const { ledger, sighting } = open();
    const different: Partial<LedgerFacts>[] = [
      {},
      { direction: 'outbound' },
      { peerAddress: '10.0.0.9' },
      { peerId: SLEEP },
      { peerWorkload: 'foo/other' },
      { peerRegisteredId: HTTPBIN },
      { ownAddress: '10.0.0.3' },
      { port: 80 },
      { service: 'bar/x' },
      { transport: 'mtls' },
      REFUSED,
      { ...REFUSED, code: 'AUTHORIZATION_DENIED' },
      { shadowCode: 'AUTHORIZATION_DENIED' },
    ];
    for (const change of [...different, ...different]) ledger.note(sighting(change));
    assert.deepEqual(
      ledger.changedAfter(-1).map(({ connections }) => connections),
      different.map(() => 2),
    );
  });

  test('goes up again only when it has changed', () => {
    const { ledger, sighting } = open();
    const joined = ledger.join(sighting());
    ledger.note(sighting(REFUSED));
    const { revision } = ledger;
    assert.deepEqual(ledger.changedAfter(revision), []);
    joined.end();
    assert.deepEqual(
      ledger.changedAfter(revision).map(({ outcome, open: still }) => [outcome, still]),
      [['allowed', 0]],
    );
  });
});

describe('a full ledger', () => {
  const scan = (ledger: Ledger, sighting: (change: Partial<LedgerFacts>) => Parameters<Ledger['note']>[0], count: number) => {
    for (let port = 1; port <= count; port++) ledger.note(sighting({ ...REFUSED, port }));
  };

  test('keeps who was let in without mTLS, however many ports are scanned', () => {
    const { ledger, sighting } = open({ inbound: 10, outbound: 5 });
    ledger.join(sighting());
    scan(ledger, sighting, 10_000);
    const entries = ledger.changedAfter(-1);
    assert.equal(entries.length, 10);
    assert.equal(entries.filter(({ outcome }) => outcome === 'allowed').length, 1);
    assert.deepEqual([ledger.dropped, ledger.forgotten], [0, 10_000 - 9]);
  });

  test('makes room for who is let in, by the refusals that were not seen for longest', () => {
    const { ledger, sighting } = open({ inbound: 3, outbound: 5 });
    scan(ledger, sighting, 3);
    ledger.note(sighting({ ...REFUSED, port: 1 }));
    ledger.join(sighting());
    assert.deepEqual(
      ledger.changedAfter(-1).map(({ port }) => port),
      [8080, 3, 1],
    );
    assert.deepEqual([ledger.dropped, ledger.forgotten], [0, 1]);
  });

  test('says so when somebody without mTLS finds no room; mTLS makes room instead', () => {
    const { ledger, sighting } = open({ inbound: 2, outbound: 5 });
    for (const peerAddress of ['10.0.0.3', '10.0.0.4']) ledger.join(sighting({ ...MTLS, peerAddress }));
    for (const peerAddress of ['10.0.0.5', '10.0.0.6']) ledger.join(sighting({ peerAddress }));
    assert.deepEqual([ledger.dropped, ledger.forgotten], [0, 2]);
    ledger.join(sighting({ peerAddress: '10.0.0.7' })).end();
    assert.deepEqual([ledger.dropped, ledger.forgotten], [1, 2]);
    assert.deepEqual(
      ledger.changedAfter(-1).map(({ peerAddress }) => peerAddress),
      ['10.0.0.5', '10.0.0.6'],
    );
  });

  test('keeps who was let in and found no application, over refusals; not over those that did find it', () => {
    const { ledger, sighting } = open({ inbound: 2, outbound: 5 });
    const found = (change: Partial<LedgerFacts> = {}) => sighting({ outcome: 'failed', code: 'DIAL_FAILED', ...change });
    ledger.note(found());
    scan(ledger, sighting, 100);
    assert.equal(ledger.changedAfter(-1)[0]?.code, 'DIAL_FAILED');
    assert.equal(ledger.dropped, 0);
    for (let port = 1; port <= 3; port++) ledger.note(found({ port }));
    ledger.join(sighting());
    assert.deepEqual(
      ledger.changedAfter(-1).map(({ outcome, port }) => [outcome, port]),
      [
        ['allowed', 8080],
        ['failed', 3],
      ],
    );
    assert.equal(ledger.dropped, 3);
  });

  test('has room for who comes in whomever the pod calls itself', () => {
    const { ledger, sighting } = open({ inbound: 2, outbound: 2 });
    for (let i = 0; i < 100; i++) ledger.join(sighting({ direction: 'outbound', peerAddress: `10.1.0.${i}` }));
    ledger.join(sighting());
    assert.equal(ledger.changedAfter(-1).filter(({ direction }) => direction === 'inbound').length, 1);
    assert.deepEqual([ledger.dropped, ledger.forgotten], [0, 98]);
  });
});

describe('totals', () => {
  const totals = ({ inboundTotals, outboundTotals }: Ledger) => [inboundTotals, outboundTotals];

  test('count what was joined or ended without, by direction, and what policy or a proof has ended', () => {
    const { ledger, sighting } = open();
    ledger.join(sighting()).end();
    ledger.note(sighting(REFUSED));
    ledger.note(sighting({ outcome: 'failed', code: 'DIAL_FAILED' }));
    ledger.note(sighting({ ...MTLS, outcome: 'failed', code: 'HANDSHAKE_FAILED' }));
    ledger.join(sighting({ direction: 'outbound' }));
    ledger.note(sighting({ direction: 'outbound', outcome: 'refused', code: 'SECURE_NAMING_MISMATCH' }));
    assert.deepEqual(totals(ledger), [
      { connections: 4, failures: 2 },
      { connections: 2, failures: 1 },
    ]);
  });

  test('count a connection that was cut once: when it was joined, or when it was cut before that; its failure either way', () => {
    const { ledger, sighting } = open();
    const cut = sighting({ outcome: 'cut', code: 'PLAINTEXT_UNDER_STRICT' });
    ledger.join(sighting()).end(cut);
    assert.deepEqual(ledger.inboundTotals, { connections: 1, failures: 1 });
    ledger.note(cut);
    assert.deepEqual(ledger.inboundTotals, { connections: 2, failures: 2 });
    ledger.join(sighting()).end(sighting({ outcome: 'cut', code: 'UNAVAILABLE' }));
    assert.deepEqual(ledger.inboundTotals, { connections: 3, failures: 2 });
    assert.equal(ledger.changedAfter(-1).find(({ code }) => code === cut.facts.code)?.connections, 2);
  });

  test('leave out who came and said nothing', () => {
    const { ledger, sighting } = open();
    ledger.note(sighting({ outcome: 'failed', transport: 'unknown', code: 'HANDSHAKE_FAILED' }));
    ledger.note(sighting({ outcome: 'refused', transport: 'unknown', code: 'PLAINTEXT_UNDER_STRICT' }));
    assert.deepEqual(ledger.inboundTotals, { connections: 1, failures: 1 });
  });

  test('count whom there is no room for, and whoever has made room and comes again', () => {
    const { ledger, sighting } = open({ inbound: 2, outbound: 1 });
    for (let round = 0; round < 3; round++) {
      for (const port of [1, 2, 3, 4]) ledger.note(sighting({ ...REFUSED, port }));
      for (const port of [1, 2, 3]) ledger.join(sighting({ port }));
    }
    assert.deepEqual(ledger.inboundTotals, { connections: 21, failures: 12 });
  });
});

describe('the tripwire', () => {
  test('says once an hour that an identity which spoke mTLS to a port speaks plaintext, with both names', () => {
    const { ledger, clock, said, sighting } = open();
    ledger.join(sighting(MTLS));
    for (const _ of [1, 2]) ledger.join(sighting());
    assert.equal(said.length, 1);
    assert.match(said[0]?.message ?? '', /^tripwire: /);
    assert.match(JSON.stringify(said[0]?.fields), new RegExp(`${SLEEP}.*${HTTPBIN}`));
    assert.deepEqual(
      ledger.changedAfter(-1).map(({ transport, tripwire }) => [transport, tripwire]),
      [
        ['plaintext', true],
        ['mtls', false],
      ],
    );
    clock.now += HOUR;
    ledger.note(sighting(REFUSED));
    assert.equal(said.length, 2);
  });

  const untouched: Readonly<Record<string, Partial<LedgerFacts>>> = {
    'another identity': { peerRegisteredId: HTTPBIN },
    'nobody registered': { peerRegisteredId: '' },
    'another port': { port: 80 },
    'mTLS again': MTLS,
  };
  for (const [name, change] of Object.entries(untouched)) {
    test(`is quiet for ${name}`, () => {
      const { ledger, said, sighting } = open();
      ledger.join(sighting(MTLS));
      ledger.join(sighting(change));
      assert.deepEqual(said, []);
    });
  }

  test('is quiet where plaintext is what the switch asks for, and for whom no handshake has proven', () => {
    const { ledger, said, sighting } = open();
    ledger.note(sighting({ ...MTLS, peerId: SLEEP, outcome: 'refused', code: 'AUTHORIZATION_DENIED' }));
    ledger.join(sighting());
    ledger.join(sighting(MTLS));
    ledger.join({ ...sighting(), expected: true });
    assert.deepEqual(said, []);
    ledger.join(sighting());
    assert.equal(said.length, 1);
  });
});

describe('messages', () => {
  test('have all entries, each message below its bound, and the last one says that it was the last', () => {
    const { ledger, sighting } = open();
    for (let port = 1; port <= 500; port++) ledger.note(sighting({ ...REFUSED, port }));
    const reported: ReportedLedger = { pod: 'bar/httpbin-1', reporter: '', ended: true, ledger };
    const messages = inMessages(reported, ledger.changedAfter(-1), 10_000);
    assert.ok(messages.length > 1);
    assert.ok(messages.every((message) => LedgerReport.encode(message).finish().length < 10_500));
    assert.deepEqual(
      messages.flatMap(({ entries }) => entries.map(({ port }) => port)),
      Array.from({ length: 500 }, (_, index) => index + 1),
    );
    assert.deepEqual(
      messages.map(({ ended }) => ended),
      messages.map((_, index) => index === messages.length - 1),
    );
    assert.equal(inMessages(reported, []).length, 1);
  });

  test('of one stream are whole at first, then what has changed, and nothing when nothing has', () => {
    const { ledger, sighting } = open();
    const sent: LedgerReport[] = [];
    const sender = new LedgerSender((message) => void sent.push(message));
    const send = (ended = false) => sender.sendChanges([{ pod: 'bar/httpbin-1', reporter: '', ended, ledger }]);
    ledger.join(sighting());
    ledger.join(sighting(MTLS));
    for (const _ of [1, 2]) send();
    ledger.join(sighting());
    send();
    assert.deepEqual(
      sent.map(({ entries }) => entries.map(({ transport, connections }) => [transport, connections])),
      [
        [
          ['plaintext', 1],
          ['mtls', 1],
        ],
        [['plaintext', 2]],
      ],
    );
  });

  test('about one that has ended are sent once; it is done with when the other side has all of them, and no sooner', () => {
    const { ledger, sighting } = open();
    const sent: LedgerReport[] = [];
    const sender = new LedgerSender((message) => void sent.push(message));
    const ended: ReportedLedger = { pod: 'bar/httpbin-1', reporter: '', ended: true, ledger };
    ledger.join(sighting());
    sender.sendChanges([{ ...ended, ended: false }]);
    for (const _ of [1, 2]) sender.sendChanges([ended]);
    assert.deepEqual(
      sent.map((message) => message.ended),
      [false, true],
    );
    assert.deepEqual([sender.taken(1), sender.taken(2), sender.taken(2)], [[], [ended], []]);
    sender.sendChanges([ended]);
    assert.equal(sent.length, 2, 'kept for another control, it is not said again to this one');
    const next = new LedgerSender((message) => void sent.push(message));
    next.sendChanges([ended]);
    assert.deepEqual([sent.length, sent.at(-1)?.entries.length, next.taken(0), next.taken(1)], [3, 1, [], [ended]]);
  });

  test('of a busy ledger hold up no other for longer than a turn', () => {
    const ledgers = Array.from({ length: 40 }, (_, index) => ({ ...open(), pod: `bar/httpbin-${index}` }));
    const sent: string[] = [];
    const sender = new LedgerSender(({ pod }) => void sent.push(pod));
    for (let second = 0; second < 3; second++) {
      for (const { ledger, sighting } of ledgers) ledger.join(sighting());
      sender.sendChanges(ledgers.map(({ pod, ledger }) => ({ pod, reporter: '', ended: false, ledger })));
    }
    assert.equal(new Set(sent).size, 40);
    assert.ok(sent.length < 60);
  });
});
