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
