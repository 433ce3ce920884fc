// Who was given which version of which secret, who was refused, and what was taken back: one record for each, in the log and in a file. Never a word of the contents.

import type { Log } from '../../observe/log.ts';
import { KeyedLimits } from '../../rate-limit.ts';
import type { SecretReceipt } from '../../wire/gen/handfast/report/v1/report.ts';
import type { AuditLog } from './audit-log.ts';
import type { SecretWorld } from './secret-world.ts';

export type AuditEvent =
  | 'changed'
  | 'revoked'
  | 'handed'
  | 'withdrawn'
  | 'refused'
  | 'delivered'
  | 'loaded'
  | 'confirmed'
  | 'dropped'
  | 'policy';

export interface AuditFields {
  /** `namespace/name` */
  readonly secret: string;
  readonly version?: string;
  readonly current?: string;
  readonly spiffeId?: string;
  readonly pod?: string;
  /** Of the agent that reported it. */
  readonly node?: string;
  /** Where the stream came from. */
  readonly from?: string;
  /** When it happened there, where that is not now: a receipt may be told again. */
  readonly happened?: string;
  readonly reason?: string;
  /** Refusals, of whomever, that were not recorded since the last one that was. */
  readonly suppressed?: number;
  readonly recipients?: readonly string[];
}

/** Of one workload: whoever asks on and on for what he may not have fills no disk, but is seen to do so. */
const REFUSALS = { burst: 100, perSecond: 1 };

const MAX_DATE_MS = 8.64e15;

export class SecretAudit {
  readonly #log: Log;
  readonly #file: AuditLog | undefined;
  readonly #now: () => number;
  readonly #refusals = new KeyedLimits(REFUSALS);
  #suppressed = 0;

  constructor({ log, file, now }: { log: Log; file: AuditLog | undefined; now: () => number }) {
    this.#log = log;
    this.#file = file;
    this.#now = now;
  }

  record(event: AuditEvent, fields: AuditFields): void {
    this.#log.info({ audit: 'secret', event, ...fields }, 'secret audit');
    this.#file?.write({ at: new Date(this.#now()).toISOString(), event, ...fields });
  }

  refused(fields: AuditFields & { readonly spiffeId: string }): void {
    if (this.#refusals.take(fields.spiffeId) > 0) {
      this.#suppressed++;
      return;
    }
    this.record('refused', this.#suppressed === 0 ? fields : { ...fields, suppressed: this.#suppressed });
    this.#suppressed = 0;
  }

  /** What has become of secrets and of who may have them. */
  changed(next: SecretWorld, before: SecretWorld | undefined): void {
    for (const [key, secret] of next.secrets) {
      const known = before?.secrets.get(key);
      if (known === secret) continue;
      const { current, versions } = secret;
      for (const version of versions.keys())
        if (known?.versions.has(version) !== true) this.record('changed', { secret: key, version, current });
      for (const version of known?.versions.keys() ?? [])
        if (!versions.has(version)) this.record('revoked', { secret: key, version, current });
      if (known !== undefined && known.current !== current && known.versions.has(current))
        this.record('changed', { secret: key, version: current, current });
    }
    for (const [key, { versions }] of before?.secrets ?? [])
      if (!next.secrets.has(key)) for (const version of versions.keys()) this.record('revoked', { secret: key, version });
    const policies = (world: SecretWorld | undefined) =>
      new Map(
        (world?.policies ?? []).flatMap(({ namespace, name, secrets, recipients }) =>
          [...secrets].map((secret) => [`${namespace}/${secret} ${name}`, { secret: `${namespace}/${secret}`, recipients }]),
        ),
      );
    const [now, then] = [policies(next), policies(before)];
    for (const [key, { secret, recipients }] of now)
      if (then.get(key)?.recipients.join() !== recipients.join()) this.record('policy', { secret, recipients });
    for (const [key, { secret }] of then) if (!now.has(key)) this.record('policy', { secret, recipients: [] });
  }

  /** What a receipt says that was not known before. */
  receipt(node: string, { before, now }: { before: SecretReceipt | undefined; now: SecretReceipt }): void {
    const { secret, version, reporter: spiffeId, pod } = now;
    for (const event of ['delivered', 'loaded', 'confirmed', 'dropped'] as const)
      if (
        now[event] > 0 &&
        (before === undefined || before[event] === 0 || (event === 'delivered' && before.dropped > 0 && now.dropped === 0))
      )
        this.record(event, { secret, version, spiffeId, ...(pod === '' ? {} : { pod }), node, happened: isoOf(now[event]) });
  }
}

/** Of what a node said: its number may be beyond all dates. */
function isoOf(ms: number): string {
  return new Date(Math.min(ms, MAX_DATE_MS)).toISOString();
}
