// A discovery stream that is kept open: opened with the workload's token, opened again with jitter when it ends, until told to stop.

import { setTimeout as delay } from 'node:timers/promises';
import type { ClientDuplexStream, Metadata } from '@grpc/grpc-js';
import { Backoff } from '../backoff.ts';
import { messageOf } from '../errors.ts';
import type { Snapshot } from '../snapshot.ts';
import { bearerMetadata } from '../wire/grpc.ts';

/** What discovery says of itself; pino's logger fits. */
export interface DiscoveryLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export interface StreamOptions<Request, Response> {
  readonly name: string;
  readonly open: (metadata: Metadata) => ClientDuplexStream<Request, Response>;
  /** Sent as a bearer token; undefined where the server knows its callers otherwise. A new value opens a new stream. */
  readonly token: Snapshot<string> | undefined;
  readonly onOpen: (send: (request: Request) => void) => void;
  readonly onMessage: (response: Response, send: (request: Request) => void) => void;
  /** After each stream that `onOpen` was called for; with the status that the server ended it with, where it did. */
  readonly onClose?: (code: unknown) => void;
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

/** A stream that lived this long was healthy: the next failure is a first one. One that says a word and ends, again and again, is not. */
const HEALTHY_MS = 5_000;

/** Resolves when the signal aborts; never rejects. */
export async function maintainStream<Request, Response>(options: StreamOptions<Request, Response>): Promise<void> {
  const { name, log, signal } = options;
  const backoff = new Backoff({ baseMs: 200, maxMs: 10_000 });
  while (!signal.aborted) {
    const opened = performance.now();
    const { reason, heard } = await runOnce(options);
    if (signal.aborted || reason === 'token changed') continue;
    if (heard && performance.now() - opened >= HEALTHY_MS) backoff.reset();
    const waitMs = Math.round(backoff.next());
    log.warn({ stream: name, reason, retryInMs: waitMs }, 'discovery stream ended, what was received stays in force');
    await delay(waitMs, undefined, { signal, ref: false }).catch(() => undefined);
  }
}

/** One stream's life; resolves with the reason it ended, and whether the server had said anything. */
function runOnce<Request, Response>(options: StreamOptions<Request, Response>): Promise<{ reason: string; heard: boolean }> {
  const { token, signal } = options;
  let call: ClientDuplexStream<Request, Response>;
  try {
    call = options.open(bearerMetadata(token?.current));
  } catch (error) {
    // A certificate file that is being replaced, say: there is nothing to open a stream with now, but soon.
    return Promise.resolve({ reason: messageOf(error), heard: false });
  }
  return new Promise((resolve) => {
    let heard = false;
    let over = false;
    const finish = (reason: string, code?: unknown) => {
      // A stream that we cancel says so later, as an error and as an end: by then the next one may be open.
      if (over) return;
      over = true;
      unsubscribe?.();
      signal.removeEventListener('abort', onAbort);
      call.cancel();
      options.onClose?.(code);
      resolve({ reason, heard });
    };
    const onAbort = () => finish('stopped');
    const unsubscribe = token?.subscribe(() => finish('token changed'));
    const send = (request: Request) => {
      if (!call.destroyed && !call.writableEnded) call.write(request);
    };
    call.on('error', (error) => finish(messageOf(error), 'code' in error ? error.code : undefined));
    call.on('end', () => finish('the server ended the stream'));
    call.on('data', (response: Response) => {
      if (over) return;
      heard = true;
      options.onMessage(response, send);
    });
    signal.addEventListener('abort', onAbort, { once: true });
    options.onOpen(send);
  });
}
