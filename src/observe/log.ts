// The log: JSON lines by pino on standard output, whole lines only, flushed at least twice a second.

import { type DestinationStream, destination, type Logger, pino } from 'pino';

export type Log = Logger;

const FLUSH_EVERY_MS = 500;

/** `write` takes whole lines that are written already. `close` writes out what is buffered and stops the timer. */
export interface LogSink {
  readonly log: Log;
  write(lines: string): void;
  close(): void;
}

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

export function openLog(options: { role: string; level: LogLevel; fd?: number }): LogSink {
  const sink = destination({ fd: options.fd ?? 1, sync: false, minLength: 4096 });
  // A closed pipe on the other side must not end the data path.
  sink.on('error', () => undefined);
  const log = logInto(sink, { level: options.level, base: { role: options.role } });
  const timer = setInterval(() => sink.flush(), FLUSH_EVERY_MS);
  timer.unref();
  return {
    log,
    write: (lines) => void sink.write(lines),
    close: () => {
      clearInterval(timer);
      try {
        sink.flushSync();
      } catch {
        // The sink was never opened or is gone: there is nobody left to tell.
      }
    },
  };
}

/** The same lines, into whatever takes them one at a time. */
export function logInto(sink: DestinationStream, { level, base }: { level: LogLevel; base: object }): Log {
  return pino(
    { level, base, formatters: { level: (label) => ({ level: label }) }, timestamp: () => `,"time":"${new Date().toISOString()}"` },
    sink,
  );
}
