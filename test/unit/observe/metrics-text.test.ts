// The text that Prometheus reads, and the parser that the other tests read it with.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type MetricFamily, metricsText, single } from '../../../src/observe/metrics-text.ts';
import { readExposition } from '../../support/exposition.ts';

const family = (samples: MetricFamily['samples']): MetricFamily => ({ name: 'x_total', type: 'counter', help: 'How many.', samples });

describe('exposition format', () => {
  it('help-type-samples', () => {
    assert.equal(
      metricsText([family([{ value: 1 }, { labels: { a: 'b', c: 'd' }, value: 2.5 }])]),
      '# HELP x_total How many.\n# TYPE x_total counter\nx_total 1\nx_total{a="b",c="d"} 2.5\n',
    );
  });

  it('what-a-label-may-hold-comes-back-as-it-was', () => {
    const odd = 'a"b\\c\nd,e="f"}';
    const { sum, samples } = readExposition(metricsText([{ ...family([{ labels: { odd }, value: 3 }]), help: 'two\nlines and a \\' }]));
    assert.equal(samples.size, 1);
    assert.equal(sum('x_total', { odd }), 3);
  });

  it('numbers-as-go-reads-them', () => {
    const values = [0, 1e21, 0.1, 1_700_000_000.123, Number.POSITIVE_INFINITY];
    const text = metricsText([family(values.map((value, index) => ({ labels: { index: String(index) }, value })))]);
    const { sum } = readExposition(text);
    assert.deepEqual(
      values.map((_, index) => sum('x_total', { index: String(index) })),
      values,
    );
    assert.match(text, /\+Inf/);
  });

  it('what-is-not-known-is-left-out', () => {
    assert.equal(metricsText([single({ name: 'y', type: 'gauge', help: 'Y.' }, undefined), family([{ value: 1 }])]).includes('y '), false);
    assert.equal(readExposition(metricsText([single({ name: 'y', type: 'gauge', help: 'Y.' }, 0)])).sum('y'), 0);
  });
});

describe('the parser of these tests refuses', () => {
  const head = '# HELP x_total X.\n# TYPE x_total counter\n';
  const cases: Readonly<Record<string, readonly [string, RegExp]>> = {
    'a sample twice': [`${head}x_total{a="1"} 1\nx_total{a="1"} 2\n`, /stands twice/],
    'a family twice': [`${head}x_total 1\n${head}x_total{a="1"} 2\n`, /HELP twice/],
    'a sample without a family': ['y 1\n', /out of place/],
    'a label that is not escaped': [`${head}x_total{a="b"c"} 1\n`, /cannot be read/],
    'a counter below 0': [`${head}x_total -1\n`, /below 0/],
    'a last line without an end': [`${head}x_total 1`, /no end/],
  };
  for (const [name, [text, message]] of Object.entries(cases)) it(name, () => assert.throws(() => readExposition(text), message));
  it('and takes what is none of that', () => assert.equal(readExposition(`${head}x_total 1\n`).sum('x_total'), 1));
});
