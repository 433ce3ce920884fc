// What the HTTP path knows of a connection, and whom it asks: who is at the other end, whether a request may pass, and how the application is reached.

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { ErrorCode } from '../errors.ts';
import type { ForwardedPeer } from './forwarded-client-cert.ts';
import type { IncomingRequest } from './incoming-request.ts';
import type { HeaderField } from './message-headers.ts';

/** Our verdict on a request. `reason` is for the log; the caller hears the status and `fields` alone. */
export type RequestVerdict =
  | {
      readonly allowed: true;
      /** Names, in lower case, that do not go on, and fields that do. */
      readonly remove: readonly string[];
      readonly add: readonly HeaderField[];
      /** What goes on instead of the query that came. */
      readonly query?: string;
    }
  | {
      readonly allowed: false;
      readonly status: 401 | 403 | 503;
      readonly code: ErrorCode;
      readonly reason: string;
      readonly fields: readonly HeaderField[];
    };

/** How a request ended. `aborted`: before its answer was whole; why is in the connection's record, or in `reason`. */
export interface RequestEnd {
  readonly request: IncomingRequest | undefined;
  readonly status: number | undefined;
  readonly decision: 'allowed' | 'refused' | 'failed';
  readonly outcome: 'answered' | 'upgraded' | 'aborted';
  readonly code?: ErrorCode;
  readonly reason?: string;
  readonly bytesToApplication: number;
  readonly bytesFromApplication: number;
  readonly durationMs: number;
}

export interface HttpConnection {
  /** Decrypted. */
  readonly stream: Duplex;
  /** Undefined for a caller who has proven nothing. */
  readonly from: ForwardedPeer | undefined;
  /** `address:port` of the application: its host where HTTP/1.0 named none. */
  readonly authority: string;
  /** A connection to the application, as a socket that may not be connected yet. */
  dial(): Socket;
  /** It is asked at the beginning of a request, and of the open one again when the mesh changes, until `ended`. */
  judge(request: IncomingRequest): RequestVerdict;
  ended(end: RequestEnd): void;
  /** Cuts all that the connection holds, so that both ends see a reset. */
  abort(): void;
}
