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
  | 'suppressed'
  | 'delivered'
  | 'loaded'
  | 'confirmed'
  | 'dropped'
  | 'policy';

export interface AuditFields {
  /** `namespace/name` */
  readonly secret?: string;
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
  /** How many refusals of the workload, and receipts, were too many to be recorded each. */
  readonly refusals?: number;
  readonly receipts?: number;
  /** `namespace/name` */
  readonly policy?: string;
  readonly recipients?: readonly string[];
  /** By all policies together. */
  readonly allRecipients?: readonly string[];
}

/** Of one workload: whoever asks on and on for what he may not have fills no disk, but is seen to do so. */
const REFUSALS = { burst: 100, perSecond: 1 };

/** Of one workload, all its pods together: each of thousands has a version, reads it and confirms it, now and then. */
const RECEIPTS = { burst: 2_000, perSecond: 5 };

/** What was too much is said once in so long, and by ID for so many; of all others together. */
const SUPPRESSED_MS = 10_000;
const MAX_SUPPRESSED = 1_000;
const OTHERS = '';

const MAX_DATE_MS = 8.64e15;

export class SecretAudit {
  readonly #log: Log;
  readonly #file: AuditLog | undefined;
  readonly #now: () => number;
  readonly #limits = { refusals: new KeyedLimits(REFUSALS), receipts: new KeyedLimits(RECEIPTS) };
  readonly #suppressedMs: number;
  readonly #suppressed = new Map<string, { refusals: number; receipts: number }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(of: { log: Log; file: AuditLog | undefined; now: () => number; suppressedMs?: number }) {
    this.#log = of.log;
    this.#file = of.file;
    this.#now = of.now;
    this.#suppressedMs = of.suppressedMs ?? SUPPRESSED_MS;
  }

  /** Before the file is closed. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#saySuppressed();
  }

  record(event: AuditEvent, fields: AuditFields): void {
    this.#log.info({ audit: 'secret', event, ...fields }, 'secret audit');
    this.#file?.write({ at: new Date(this.#now()).toISOString(), event, ...fields });
  }

  refused(fields: AuditFields & { readonly spiffeId: string }): void {
    if (this.#mayRecord('refusals', fields.spiffeId)) this.record('refused', fields);
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
          [...secrets].map((secret) => {
            const of = { secret: `${namespace}/${secret}`, policy: `${namespace}/${name}` };
            return [`${of.secret} ${name}`, { ...of, recipients }];
          }),
        ),
      );
    const allRecipients = (secret: string) => [...new Set(next.policiesOf.get(secret)?.flatMap(({ recipients }) => recipients))];
    const [now, then] = [policies(next), policies(before)];
    for (const [key, of] of now)
      if (then.get(key)?.recipients.join() !== of.recipients.join())
        this.record('policy', { ...of, allRecipients: allRecipients(of.secret) });
    for (const [key, of] of then)
      if (!now.has(key)) this.record('policy', { ...of, recipients: [], allRecipients: allRecipients(of.secret) });
  }

  /** What a receipt says that was not known before. */
  receipt(node: string, { before, now }: { before: SecretReceipt | undefined; now: SecretReceipt }): void {
    const { secret, version, reporter: spiffeId, pod } = now;
    for (const event of ['delivered', 'loaded', 'confirmed', 'dropped'] as const)
      if (
        now[event] > 0 &&
        (before === undefined || before[event] === 0 || (event === 'delivered' && before.dropped > 0 && now.dropped === 0)) &&
        this.#mayRecord('receipts', spiffeId)
      )
        this.record(event, { secret, version, spiffeId, ...(pod === '' ? {} : { pod }), node, happened: isoOf(now[event]) });
  }

  /** What may not be is counted, and said later with whose it is. */
  #mayRecord(what: 'refusals' | 'receipts', spiffeId: string): boolean {
    if (this.#limits[what].take(spiffeId) === 0) return true;
    const whose = this.#suppressed.has(spiffeId) || this.#suppressed.size < MAX_SUPPRESSED ? spiffeId : OTHERS;
    const counts = this.#suppressed.get(whose) ?? { refusals: 0, receipts: 0 };
    counts[what]++;
    this.#suppressed.set(whose, counts);
    this.#timer ??= setTimeout(() => this.#saySuppressed(), this.#suppressedMs).unref();
    return false;
  }

  #saySuppressed(): void {
    this.#timer = undefined;
    for (const [spiffeId, counts] of this.#suppressed)
      this.record('suppressed', { ...(spiffeId === OTHERS ? { reason: 'of others, together' } : { spiffeId }), ...counts });
    this.#suppressed.clear();
  }
}

/** Of what a node said: its number may be beyond all dates. */
function isoOf(ms: number): string {
  return new Date(Math.min(ms, MAX_DATE_MS)).toISOString();
}
