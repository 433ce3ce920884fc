// Buffers for what is about to be sent, used over and over.

/** Room for a full write, and the frames that do not ask how full it is. */
export const SLAB_BYTES = 72 * 1024;
/** Slabs that nobody uses are kept for the next writer, up to so many. */
const MAX_FREE = 16;

const free: Slab[] = [];

/** A buffer that is written to, leaves, and is used again once OpenSSL has read it: what comes and goes with every write would keep the garbage collector busy. */
export class Slab {
  static take(): Slab {
    return free.pop() ?? new Slab();
  }

  readonly bytes = Buffer.allocUnsafeSlow(SLAB_BYTES);
  /** Called when what was written has left. */
  readonly release = () => {
    if (free.length < MAX_FREE) free.push(this);
  };
}

/** One TLS record. */
const READ_BYTES = 16 * 1024;
/** 1 MB. */
const MAX_FREE_READS = 64;

const freeReads: ReadBuffer[] = [];

/** A buffer to read into, used again when nobody needs any more what was read. */
export class ReadBuffer {
  static take(): ReadBuffer {
    const buffer = freeReads.pop() ?? new ReadBuffer();
    buffer.#given = false;
    return buffer;
  }

  readonly bytes = Buffer.allocUnsafeSlow(READ_BYTES);
  #needs = 0;
  #given = false;
  readonly #release = () => {
    this.#needs--;
    this.#keep();
  };

  get needed(): boolean {
    return this.#needs > 0;
  }

  /** What was read is needed until the returned function is called, once. */
  retain(): () => void {
    this.#needs++;
    return this.#release;
  }

  /** Nobody reads into it any more. */
  give(): void {
    this.#given = true;
    this.#keep();
  }

  #keep(): void {
    if (this.#given && this.#needs === 0 && freeReads.length < MAX_FREE_READS) freeReads.push(this);
  }
}
