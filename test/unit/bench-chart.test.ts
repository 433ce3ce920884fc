// The bench's chart is well-formed XML that shows who was measured, and its progress bar fits its terminal.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { chart, escapeXml } from '../../bench/chart.ts';
import { bar } from '../../bench/progress.ts';
import type { Report, Result } from '../../bench/report.ts';
import type { Contender } from '../../bench/scenario.ts';

function result(peer: Contender, cpuUs: number | null): Result {
  const none = { rate: null, cpuMinUs: null, p50Us: null, p99Us: null, rssMb: null, rssEachMb: null, failures: null };
  return { peer, version: '1', cpuUs, rounds: 1, raw: [], stealPercent: null, busyPercent: null, ...none };
}

const machine = { cpu: 'A & B <fast>', cores: 2, memoryGb: 4, kernel: 'Linux', node: 'v24', openssl: '3', generator: 'wrk' };
const report: Report = {
  machine,
  settings: { seconds: 1, rounds: 1, maxStealPercent: 10, startedAt: '2026-01-01T00:00' },
  scenarios: [
    { name: 'handshake', results: [result('handfast', 10), result('haproxy', 20), result('hitch', null)] },
    { name: 'bulk-1', results: [result('handfast', 10), result('nginx', 999)] },
    { name: 'rotation', results: [result('handfast', null), result('nginx', 5)] },
  ],
};

/** Every tag is closed in order, and no bare ampersand or quote is left: a parser for what `chart` writes. */
function assertWellFormed(svg: string): void {
  const open: string[] = [];
  for (const [, closing, name = '', attributes = '', alone] of svg.matchAll(/<(\/?)([a-z]+)((?: [a-zA-Z0-9-]+="[^"<]*")*)\s*(\/?)>/g)) {
    assert.doesNotMatch(attributes, /&(?!amp;|lt;|gt;|quot;)/);
    if (closing === '/') assert.equal(open.pop(), name);
    else if (alone !== '/') open.push(name);
  }
  assert.deepEqual(open, []);
  const text = svg.replaceAll(/<(\/?)([a-z]+)((?: [a-zA-Z0-9-]+="[^"<]*")*)\s*(\/?)>/g, '');
  assert.doesNotMatch(text, /[<>]|&(?!amp;|lt;|gt;|quot;)/);
}

describe('bench chart', () => {
  const svg = chart(report);

  it('is-well-formed-and-self-contained', () => {
    assertWellFormed(svg);
    assert.match(svg, /A &amp; B &lt;fast&gt;/);
    assert.doesNotMatch(svg, /href|url\(|<script/);
    assert.doesNotMatch(svg, /NaN|undefined|null/);
  });

  it('shows-who-was-measured-relative-to-handfast', () => {
    assert.match(svg, />2\.00 {2}\(20\.0 us\)</);
    assert.doesNotMatch(svg, /hitch/);
  });

  it('cuts-what-is-too-long-and-says-how-long-it-is', () => {
    assert.match(svg, />99\.90 {2}\(999 us\)</);
    for (const [, width] of svg.matchAll(/<rect x="\d+" y="\d+" width="([\d.]+)"/g)) assert.ok(Number(width) < 700);
  });

  it('leaves-out-a-scenario-without-us', () => {
    assert.doesNotMatch(svg, /rotation/);
  });

  it('escapes', () => {
    assert.equal(escapeXml('<a b="c">&'), '&lt;a b=&quot;c&quot;&gt;&amp;');
  });
});

describe('bench progress bar', () => {
  const at = { total: 100, elapsedMs: 600_000, what: 'keepalive-64', columns: 80 };

  it('says-how-far-and-how-long', () => {
    assert.equal(bar({ ...at, done: 50 }), '[###############---------------]  50 %  10 min left  keepalive-64');
  });

  it('guesses-nothing-at-the-beginning-or-at-the-end', () => {
    assert.doesNotMatch(bar({ ...at, done: 1 }), /left/);
    assert.match(bar({ ...at, done: 100 }), /^\[#{30}\] 100 % {2}keepalive-64$/);
  });

  it('fits-a-narrow-terminal', () => {
    assert.equal(bar({ ...at, done: 50, columns: 20 }).length, 19);
  });
});
