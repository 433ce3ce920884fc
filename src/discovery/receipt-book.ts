// Who has which version of which secret: receipts of workload instances, merged as they come, in bounded memory.

import { isSecretKey, isSecretVersion } from '../policy/secret-name.ts';
import { parseSpiffeId, workloadOf } from '../spiffe/spiffe-id.ts';
import type { SecretReceipt } from '../wire/gen/handfast/report/v1/report.ts';

/** A workload instance: the ID it has proven, and the pod (`namespace/name`) where that is known. */
export type Instance = Pick<SecretReceipt, 'reporter' | 'pod'>;

interface Entry {
  receipt: SecretReceipt;
  revision: number;
}

const BOUNDS = { receipts: 20_000, ofReporter: 4_096, ofInstance: 512 } as const;
const POD = /^([a-z0-9-]{1,63})\/[a-z0-9.-]{1,253}$/;
const TIMES = ['delivered', 'loaded', 'confirmed', 'dropped', 'left'] as const;

export class ReceiptBook {
  readonly #bounds: Readonly<Record<keyof typeof BOUNDS, number>>;
  /** By instance, then by secret and version: the longest unchanged first. */
  readonly #instances = new Map<string, Map<string, Entry>>();
  /** How many receipts there are of each ID, and of which instances. */
  readonly #reporters = new Map<string, { size: number; readonly instances: Set<string> }>();
  #size = 0;
  #revision = 0;

  constructor(bounds: Partial<Record<keyof typeof BOUNDS, number>> = {}) {
    this.#bounds = { ...BOUNDS, ...bounds };
  }

  /** What an instance holds of a secret from now on: what it held before and is not among these has been taken back. */
  holds({ reporter, pod }: Instance, { secret, versions, at }: { secret: string; versions: readonly string[]; at: number }): void {
    const present = new Set(versions);
    for (const { receipt } of [...(this.#instances.get(instanceKey({ reporter, pod }))?.values() ?? [])])
      if (receipt.secret === secret && receipt.dropped === 0 && !present.has(receipt.version)) this.take({ ...receipt, dropped: at });
    for (const version of present) this.take({ ...nothing({ reporter, pod }), secret, version, delivered: at });
  }

  /** A stream of it has ended, and nobody knows any more what it does with what it has: all but what another one holds. */
  leaves(instance: Instance, { at, isHeld = () => false }: { at: number; isHeld?: (receipt: SecretReceipt) => boolean }): void {
    for (const { receipt } of [...(this.#instances.get(instanceKey(instance))?.values() ?? [])])
      if (receipt.left === 0 && !isHeld(receipt)) this.take({ ...receipt, left: at });
  }

  /** What an application has done with a version that it was given. */
  used(instance: Instance, of: Pick<SecretReceipt, 'secret' | 'version' | 'loaded' | 'confirmed'>): void {
    const { reporter, pod } = instance;
    const { secret, version, loaded, confirmed } = of;
    this.told({ ...nothing({ reporter, pod }), secret, version, loaded, confirmed });
  }

  /** A sidecar's word, who knows nothing of whether it is heard. */
  told(receipt: SecretReceipt): void {
    this.take({ ...receipt, left: this.#instances.get(instanceKey(receipt))?.get(entryKey(receipt))?.receipt.left ?? 0 });
  }

  /** Merges it with what is known. Returns what was known before, and what is known now. */
  take(receipt: SecretReceipt): { readonly before: SecretReceipt | undefined; readonly now: SecretReceipt } {
    const instance = instanceKey(receipt);
    const entries = this.#instances.get(instance) ?? new Map<string, Entry>();
    this.#instances.set(instance, entries);
    const key = entryKey(receipt);
    const known = entries.get(key);
    const now = known === undefined ? receipt : merged(known.receipt, receipt);
    if (known !== undefined && TIMES.every((time) => known.receipt[time] === now[time])) return { before: known.receipt, now };
    entries.delete(key);
    entries.set(key, { receipt: now, revision: ++this.#revision });
    if (known === undefined) this.#count(receipt.reporter, instance);
    return { before: known?.receipt, now };
  }

  has(receipt: SecretReceipt): boolean {
    return this.#instances.get(instanceKey(receipt))?.has(entryKey(receipt)) === true;
  }

  get revision(): number {
    return this.#revision;
  }

  /** In the order of their changes. Not those of which nobody knows that they were delivered: that is a sidecar's word alone. */
  changedAfter(revision: number): SecretReceipt[] {
    return [...this.#instances.values()]
      .flatMap((entries) => [...entries.values()])
      .filter((entry) => entry.revision > revision && entry.receipt.delivered > 0)
      .sort((a, b) => a.revision - b.revision)
      .map(({ receipt }) => receipt);
  }

  get all(): readonly SecretReceipt[] {
    return this.changedAfter(-1);
  }

  /** Whoever has too many makes room himself: his receipts crowd out nobody else's. */
  #count(reporter: string, instance: string): void {
    const of = this.#reporters.get(reporter) ?? { size: 0, instances: new Set() };
    this.#reporters.set(reporter, of);
    of.instances.add(instance);
    of.size++;
    this.#size++;
    if ((this.#instances.get(instance)?.size ?? 0) > this.#bounds.ofInstance) this.#drop(reporter, instance);
    if (of.size > this.#bounds.ofReporter) this.#dropOneOf(reporter);
    if (this.#size > this.#bounds.receipts) this.#dropOneOf([...this.#reporters].reduce((a, b) => (b[1].size > a[1].size ? b : a))[0]);
  }

  #dropOneOf(reporter: string): void {
    const [instance] = this.#reporters.get(reporter)?.instances ?? [];
    if (instance !== undefined) this.#drop(reporter, instance);
  }

  /** The longest unchanged of what it does not hold any more, and otherwise the longest unchanged. */
  #drop(reporter: string, instance: string): void {
    const entries = this.#instances.get(instance);
    const of = this.#reporters.get(reporter);
    if (entries === undefined || of === undefined) return;
    const over = [...entries].find(([, { receipt }]) => receipt.dropped > 0 || receipt.left > 0) ?? [...entries][0];
    if (over === undefined || !entries.delete(over[0])) return;
    this.#size--;
    of.size--;
    if (entries.size > 0) return;
    this.#instances.delete(instance);
    of.instances.delete(instance);
    if (of.size === 0) this.#reporters.delete(reporter);
  }
}

/** A receipt in which nothing has happened yet. */
export function nothing(instance: Instance): Omit<SecretReceipt, 'secret' | 'version'> {
  return { ...instance, delivered: 0, loaded: 0, confirmed: 0, dropped: 0, left: 0 };
}

/** Whether it can be one at all. `reporter` has proven that ID: of pods it is believed within its own namespace alone. */
export function believedReceipt(receipt: SecretReceipt, reporter: string): SecretReceipt | undefined {
  const { pod, secret, version } = receipt;
  if (!isSecretKey(secret) || !isSecretVersion(version)) return undefined;
  if (TIMES.some((time) => !Number.isSafeInteger(receipt[time]) || receipt[time] < 0)) return undefined;
  try {
    return { ...receipt, reporter, pod: believedPod(pod, reporter) };
  } catch {
    return undefined;
  }
}

export function believedPod(pod: string, reporter: string): string {
  const namespace = POD.exec(pod)?.[1];
  return namespace !== undefined && namespace === workloadOf(parseSpiffeId(reporter))?.namespace ? pod : '';
}

/** The first time counts, until it was taken back and given again. */
function merged(before: SecretReceipt, next: SecretReceipt): SecretReceipt {
  if (before.dropped > 0 && next.delivered > before.dropped) return next;
  // Of the time before it was given again.
  if (next.dropped > 0 && next.dropped < before.delivered) return before;
  const first = (time: 'delivered' | 'loaded' | 'confirmed' | 'dropped') =>
    before[time] === 0 ? next[time] : next[time] === 0 ? before[time] : Math.min(before[time], next[time]);
  return {
    ...next,
    delivered: first('delivered'),
    loaded: first('loaded'),
    confirmed: first('confirmed'),
    dropped: first('dropped'),
  };
}

function entryKey({ secret, version }: Pick<SecretReceipt, 'secret' | 'version'>): string {
  return `${secret}@${version}`;
}

function instanceKey({ reporter, pod }: Instance): string {
  return `${reporter} ${pod}`;
}
