// What tests ask of pods, and how long they wait for it.

import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import type { PlayedPod } from './played-kubelet.ts';

/** Of an application in a pod. */
const APPLICATION = { uid: 1000, gid: 1000 };

/** HTTP status of a call to port 8000, 0 when there is none. */
export async function ask(from: PlayedPod, host: string): Promise<number> {
  const { stdout } = await from.netns.attempt(
    ['curl', '-s', '-m', '5', '-o', '/dev/null', '-w', '%{http_code}', `http://${host}:8000/get`],
    APPLICATION,
  );
  return Number(stdout);
}

/** Until it is so, a minute at most; how long that took, in milliseconds. */
export async function until(what: string, holds: () => Promise<boolean>): Promise<number> {
  const started = performance.now();
  while (!(await holds())) {
    assert.ok(performance.now() - started < 60_000, `${what}: not within 60 s`);
    await delay(20);
  }
  return Math.round(performance.now() - started);
}
