// Notices a rotation that silently stopped: certificates are renewed at half their life, so one that is much older than that has been forgotten.

import type { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';

interface WatchdogLog {
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** Parts of a certificate's life: from `late` on it is said, from `urgent` on it is an error, and it is said again at every further step. */
const LATE = 2 / 3;
const URGENT = 5 / 6;
const STEP = 1 / 24;
const MIN_POLL_MS = 100;
const MAX_POLL_MS = 30_000;

/** Looks until the signal aborts. `warning()` is what an operator should know now, or undefined. */
export function watchExpiry(options: {
  readonly identity: Snapshot<Identity>;
  readonly log: WatchdogLog;
  readonly now: () => number;
  readonly signal: AbortSignal;
}): { warning(): string | undefined } {
  const { identity, log, now, signal } = options;
  // Counted from when it came into force: certificates are dated back, and a short one would be old on arrival.
  let watched = identity.current === undefined ? undefined : { svid: identity.current.svid, since: now() };
  let sayAt = LATE;
  let timer: NodeJS.Timeout | undefined;
  const age = () => {
    if (watched === undefined) return { used: 0, diesInS: 0 };
    const { svid, since } = watched;
    return { used: (now() - since) / Math.max(1, svid.notAfter - since), diesInS: Math.round((svid.notAfter - now()) / 1000) };
  };

  const look = () => {
    const { used, diesInS } = age();
    if (watched !== undefined && used >= sayAt) {
      sayAt = used < URGENT ? Math.min(used + STEP, URGENT) : used + STEP;
      const fields = { spiffeId: watched.svid.id.uri, serial: watched.svid.serial, usedOfLife: Math.round(used * 100) / 100, diesInS };
      if (used >= URGENT) log.error(fields, 'certificate not renewed: rotation has stopped');
      else log.warn(fields, 'certificate not renewed: rotation has stopped');
    }
    clearTimeout(timer);
    const life = watched === undefined ? MAX_POLL_MS : watched.svid.notAfter - watched.since;
    timer = setTimeout(look, Math.min(MAX_POLL_MS, Math.max(MIN_POLL_MS, life / 100)));
    timer.unref();
  };
  const unsubscribe = identity.subscribe(({ svid }) => {
    if (svid.chainPem === watched?.svid.chainPem) return;
    watched = { svid, since: now() };
    sayAt = LATE;
    look();
  });
  look();
  signal.addEventListener(
    'abort',
    () => {
      clearTimeout(timer);
      unsubscribe();
    },
    { once: true },
  );
  return {
    warning: () => {
      const { used, diesInS } = age();
      if (used < LATE) return undefined;
      if (diesInS <= 0) return `the certificate has not been renewed: it died ${-diesInS} s ago`;
      return `the certificate has not been renewed: ${Math.round(used * 100)} % of its time is over, it dies in ${diesInS} s`;
    },
  };
}
