// A peer's SETTINGS, checked; what a tunnel has no use for is checked all the same.

import { H2Error, MAX_FRAME_BYTES, MAX_WINDOW, SessionError, Setting } from './frame.ts';

/** Undefined for what was not said. */
export interface PeerSettings {
  readonly initialWindow: number | undefined;
  readonly maxStreams: number | undefined;
}

/** Throws SessionError for values that RFC 9113, 6.5.2 forbids to a client or to a server. */
export function readSettings(payload: Buffer, peerIs: 'client' | 'server'): PeerSettings {
  if (payload.length % 6 !== 0) throw new SessionError(H2Error.FRAME_SIZE_ERROR, `SETTINGS of ${payload.length} bytes`);
  let initialWindow: number | undefined;
  let maxStreams: number | undefined;
  for (let offset = 0; offset < payload.length; offset += 6) {
    const value = payload.readUInt32BE(offset + 2);
    switch (payload.readUInt16BE(offset)) {
      case Setting.INITIAL_WINDOW_SIZE:
        if (value > MAX_WINDOW) throw new SessionError(H2Error.FLOW_CONTROL_ERROR, `INITIAL_WINDOW_SIZE ${value}`);
        initialWindow = value;
        break;
      case Setting.MAX_CONCURRENT_STREAMS:
        maxStreams = value;
        break;
      case Setting.ENABLE_PUSH:
        // It is the client's to allow; a server that says it would push breaks the protocol.
        if (value > (peerIs === 'client' ? 1 : 0)) throw new SessionError(H2Error.PROTOCOL_ERROR, `ENABLE_PUSH ${value}`);
        break;
      case Setting.MAX_FRAME_SIZE:
        if (value < MAX_FRAME_BYTES || value > 0xff_ffff) throw new SessionError(H2Error.PROTOCOL_ERROR, `MAX_FRAME_SIZE ${value}`);
        break;
      default:
    }
  }
  return { initialWindow, maxStreams };
}
