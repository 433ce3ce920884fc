// The events of a watch: JSON lines, as they come over the connection.

import { HandfastError } from '../errors.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import type { KubeObject } from './api.ts';

export const watchEventTypes = ['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR'] as const;

export interface WatchEvent {
  readonly type: (typeof watchEventTypes)[number];
  readonly object: KubeObject;
}

/** An object is 1.5 MB at most in etcd, and JSON somewhat longer. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;
const NEWLINE = 0x0a;

/** Cuts bytes into events, whatever pieces they come in. */
export class WatchEvents {
  readonly #what: string;
  #pieces: Buffer[] = [];
  #length = 0;

  constructor(what: string) {
    this.#what = what;
  }

  /** The events that end in these bytes. Throws UNAVAILABLE for what is none. */
  push(bytes: Buffer): WatchEvent[] {
    const events: WatchEvent[] = [];
    let rest = bytes;
    for (let end = rest.indexOf(NEWLINE); end >= 0; end = rest.indexOf(NEWLINE)) {
      this.#keep(rest.subarray(0, end));
      const line = Buffer.concat(this.#pieces).toString('utf8');
      this.#pieces = [];
      this.#length = 0;
      if (line.trim() !== '') events.push(this.#parse(line));
      rest = rest.subarray(end + 1);
    }
    if (rest.length > 0) this.#keep(rest);
    return events;
  }

  #keep(bytes: Buffer): void {
    this.#length += bytes.length;
    if (this.#length > MAX_LINE_BYTES)
      throw new HandfastError('UNAVAILABLE', `${this.#what}: an event is longer than ${MAX_LINE_BYTES} bytes`);
    this.#pieces.push(bytes);
  }

  #parse(line: string): WatchEvent {
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch {
      // Why not is not said: a parser's message quotes the text, and that may be a secret.
      throw new HandfastError('UNAVAILABLE', `${this.#what}: an event is no JSON`);
    }
    const type = isJsonObject(value) ? watchEventTypes.find((name) => name === value.type) : undefined;
    if (!isJsonObject(value) || type === undefined || !isJsonObject(value.object))
      throw new HandfastError('UNAVAILABLE', `${this.#what}: an event has no type that is known, or no object`);
    return { type, object: value.object };
  }
}
