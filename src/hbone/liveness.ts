// Whether the peer is still there, and how far it has read: PINGs of ours, their answers, and an end to silence.

export interface LivenessOptions {
  /** For the peer's SETTINGS, and for the answer to a PING of ours where streams are open and nothing comes. */
  readonly silenceMs: number;
  /** Nobody would miss the peer now, or it is not listened to. */
  readonly excused: () => boolean;
  readonly ping: (payload: Buffer) => void;
  readonly onSilence: (of: 'settings' | 'answer') => void;
}

const STILL_THERE = Buffer.from('handfast', 'latin1');
const READ_SO_FAR = Buffer.from('draining', 'latin1');

export class Liveness {
  readonly #options: LivenessOptions;
  readonly #watch: NodeJS.Timeout;
  #settled = false;
  #heard = false;
  #asked = false;
  #onRead: (() => void) | undefined;
  #readDeadline: NodeJS.Timeout | undefined;

  constructor(options: LivenessOptions) {
    this.#options = options;
    this.#watch = setInterval(() => this.#look(), options.silenceMs).unref();
  }

  /** Something has come. */
  heard(): void {
    this.#heard = true;
  }

  /** The peer has said its SETTINGS. */
  settled(): void {
    this.#settled = true;
  }

  /** Calls back once: when the peer has read everything that was said so far, or does not say so in time. */
  whenRead(onRead: () => void): void {
    this.#onRead = onRead;
    this.#readDeadline = setTimeout(() => this.#read(), this.#options.silenceMs).unref();
    this.#options.ping(READ_SO_FAR);
  }

  /** A PING's answer. False when nothing of ours was like it. */
  answered(payload: Buffer): boolean {
    if (this.#onRead !== undefined && payload.equals(READ_SO_FAR)) {
      this.#read();
      return true;
    }
    if (!this.#asked || !payload.equals(STILL_THERE)) return false;
    this.#asked = false;
    return true;
  }

  stop(): void {
    clearInterval(this.#watch);
    clearTimeout(this.#readDeadline);
    this.#onRead = undefined;
  }

  #read(): void {
    clearTimeout(this.#readDeadline);
    const onRead = this.#onRead;
    this.#onRead = undefined;
    onRead?.();
  }

  /** A peer that does not say SETTINGS in time, or that is silent while streams are open and does not answer a PING, is gone. */
  #look(): void {
    if (!this.#settled) {
      this.#options.onSilence('settings');
    } else if (this.#heard || this.#options.excused()) {
      this.#heard = false;
      this.#asked = false;
    } else if (this.#asked) {
      this.#options.onSilence('answer');
    } else {
      this.#asked = true;
      this.#options.ping(STILL_THERE);
    }
  }
}
