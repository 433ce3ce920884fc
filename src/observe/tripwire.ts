// The tripwire: an identity that has spoken mTLS to a port and comes in plaintext now. A sidecar was lost, or somebody sits at the pod's address.

/** Each is one identity and one of our ports. */
const MAX_PAIRS = 2_000;
const QUIET_MS = 3_600_000;

export class Tripwire {
  /** Until when nothing more is said of a pair; the longest unseen first. Only a proven peer gets in, so that nobody can crowd out another by mere packets. */
  readonly #quietUntil = new Map<string, number>();

  /** Remembers a pair that speaks mTLS. */
  spokeMtls(pair: { id: string; port: number }): void {
    const key = keyOf(pair);
    const quietUntil = this.#quietUntil.get(key) ?? 0;
    this.#quietUntil.delete(key);
    this.#quietUntil.set(key, quietUntil);
    if (this.#quietUntil.size <= MAX_PAIRS) return;
    for (const [oldest] of this.#quietUntil) {
      this.#quietUntil.delete(oldest);
      return;
    }
  }

  /** Whether plaintext of this pair trips the wire, and whether that is to be said: once an hour. */
  spokePlaintext(pair: { id: string; port: number }, now: number): { tripped: boolean; say: boolean } {
    const key = keyOf(pair);
    const quietUntil = this.#quietUntil.get(key);
    if (quietUntil === undefined) return { tripped: false, say: false };
    const say = now >= quietUntil;
    if (say) this.#quietUntil.set(key, now + QUIET_MS);
    return { tripped: true, say };
  }
}

function keyOf({ id, port }: { id: string; port: number }): string {
  return `${port} ${id}`;
}
