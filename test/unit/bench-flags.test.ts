// The command line of `bench compare`.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Refused, readCompareFlags } from '../../bench/compare-flags.ts';
import { peerNames, scenarioNames } from '../../bench/scenario.ts';

describe('bench compare flags', () => {
  it('by-default-everything-is-measured-and-written', () => {
    const options = readCompareFlags([]);
    assert.deepEqual(options?.scenarios, scenarioNames);
    assert.deepEqual([...(options?.peers ?? [])], peerNames);
    assert.equal(options?.results, true);
    assert.equal(options?.idleConnections, 10_000);
  });

  it('a-part-or-a-quick-run-is-not-written-unless-told-where', () => {
    assert.equal(readCompareFlags(['--scenarios', 'handshake'])?.results, undefined);
    assert.equal(readCompareFlags(['--peers', 'nginx'])?.results, undefined);
    assert.equal(readCompareFlags(['--quick'])?.results, undefined);
    assert.equal(readCompareFlags(['--quick', '--results', 'somewhere'])?.results, 'somewhere');
  });

  it('quick-is-one-short-round-without-repeats', () => {
    const options = readCompareFlags(['--quick']);
    assert.deepEqual([options?.seconds, options?.rounds, options?.repeats, options?.warmUp], [1, 1, 0, false]);
    assert.equal(readCompareFlags(['--quick', '--rounds', '2'])?.rounds, 2);
  });

  it('scenarios-run-in-our-order', () => {
    assert.deepEqual(readCompareFlags(['--scenarios', 'bulk-1,handshake'])?.scenarios, ['handshake', 'bulk-1']);
  });

  it('mistakes-are-refused-with-what-is-accepted', () => {
    const refusals: readonly (readonly [string[], RegExp])[] = [
      [['--peers', 'apache'], /--peers apache: of haproxy/],
      [['--scenarios', 'handshakes'], /--scenarios handshakes: of handshake/],
      [['--seconds', '0'], /whole number from 1 to 60/],
      [['--rounds', 'x'], /whole number from 1 to 100/],
      [['--unknown'], /--unknown/],
    ];
    for (const [args, message] of refusals)
      assert.throws(
        () => readCompareFlags(args),
        (error) => error instanceof Refused && message.test(error.message),
      );
  });

  it('help', () => {
    assert.equal(readCompareFlags(['--help']), undefined);
  });
});
