// HEADERS and their CONTINUATIONs: one block, bounded in bytes and frames, decoded when it is whole (RFC 9113, 4.3, 6.2, 6.10).

import { Flag, H2Error, SessionError } from './frame.ts';
import { type HeaderField, HpackDecoder } from './hpack-decoder.ts';

/** A CONNECT has two fields; proxies add a few of their own. */
export const MAX_HEADER_LIST_BYTES = 16 * 1024;
/** Compressed it is smaller. Without a bound, a peer could send CONTINUATION for ever (CVE-2024-27316 and its like). */
const MAX_BLOCK_BYTES = 16 * 1024;
const MAX_CONTINUATIONS = 8;

interface Fragment {
  readonly streamId: number;
  readonly flags: number;
  readonly payload: Buffer;
}

export class HeaderBlocks {
  readonly #decoder = new HpackDecoder({ maxHeaderListSize: MAX_HEADER_LIST_BYTES });
  readonly #onHeaders: (streamId: number, flags: number, fields: readonly HeaderField[] | undefined) => void;
  #open: { streamId: number; flags: number; parts: Buffer[]; bytes: number; frames: number } | undefined;

  /** `fields` is undefined for a list that is too long. */
  constructor(onHeaders: (streamId: number, flags: number, fields: readonly HeaderField[] | undefined) => void) {
    this.#onHeaders = onHeaders;
  }

  /** Between HEADERS and the end of their block nothing else may come. */
  mustBeClosed(): void {
    if (this.#open !== undefined) throw new SessionError(H2Error.PROTOCOL_ERROR, 'a header block with something else in its middle');
  }

  begin({ streamId, flags, payload }: Fragment): void {
    this.mustBeClosed();
    if (streamId === 0) throw new SessionError(H2Error.PROTOCOL_ERROR, 'HEADERS on stream 0');
    const block = withoutPadding(flags, payload);
    if ((flags & Flag.END_HEADERS) !== 0) this.#decode(streamId, flags, block);
    // The payload is only ours until we return.
    else this.#open = { streamId, flags, parts: [Buffer.from(block)], bytes: block.length, frames: 0 };
  }

  continue({ streamId, flags, payload }: Fragment): void {
    const open = this.#open;
    if (open === undefined || open.streamId !== streamId) throw new SessionError(H2Error.PROTOCOL_ERROR, 'CONTINUATION of nothing');
    open.bytes += payload.length;
    if (open.bytes > MAX_BLOCK_BYTES || ++open.frames > MAX_CONTINUATIONS)
      throw new SessionError(
        H2Error.ENHANCE_YOUR_CALM,
        `a header block of more than ${MAX_BLOCK_BYTES} bytes or ${MAX_CONTINUATIONS} CONTINUATIONs`,
      );
    open.parts.push(Buffer.from(payload));
    if ((flags & Flag.END_HEADERS) === 0) return;
    this.#open = undefined;
    this.#decode(streamId, open.flags, Buffer.concat(open.parts));
  }

  #decode(streamId: number, flags: number, block: Buffer): void {
    const { fields, tooLong } = this.#decoder.decode(block);
    this.#onHeaders(streamId, flags, tooLong ? undefined : fields);
  }
}

function withoutPadding(flags: number, payload: Buffer): Buffer {
  const padded = (flags & Flag.PADDED) !== 0;
  const before = (padded ? 1 : 0) + ((flags & Flag.PRIORITY) !== 0 ? 5 : 0);
  const after = padded ? (payload[0] ?? 0) : 0;
  if (payload.length < before) throw new SessionError(H2Error.FRAME_SIZE_ERROR, `HEADERS of ${payload.length} bytes`);
  if (before + after > payload.length) throw new SessionError(H2Error.PROTOCOL_ERROR, 'HEADERS with more padding than payload');
  return payload.subarray(before, payload.length - after);
}
