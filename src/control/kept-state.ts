// Where a part of control's state outlives it: one text in a file of its own directory, or in the API server (kube/kept-text.ts), by the one parser that knows it.

import { rename } from 'node:fs/promises';
import { HandfastError, messageOf } from '../errors.ts';
import { parseStrictObject } from '../spiffe/strict-json.ts';
import { readPrivate, replacePrivate } from '../store/state-file.ts';

export interface KeptState {
  /** For people: a path, or the object's name. */
  readonly place: string;
  /** Undefined when there is none. Throws STATE_INVALID for what cannot be read. */
  read(): Promise<string | undefined>;
  /** Replaces it whole. Throws KUBE_CONFLICT when somebody else has written since we did. */
  write(text: string): Promise<void>;
  /** Keeps what cannot be read for people to look at; where that is, in words. Without it, it is lost with the next write. */
  setAside?(now: number): Promise<string>;
}

export function fileState(path: string): KeptState {
  return {
    place: path,
    read: () => readPrivate(path),
    write: (text) => replacePrivate(path, text),
    setAside: async (now) => {
      const aside = `${path}.broken-${now}`;
      await rename(path, aside);
      return aside;
    },
  };
}

/** Undefined when there is none. Throws STATE_INVALID, naming the place. */
export async function readState<T>(kept: KeptState, parse: (fields: Readonly<Record<string, unknown>>) => T): Promise<T | undefined> {
  const text = await kept.read();
  if (text === undefined) return undefined;
  try {
    return parse(parseStrictObject(text));
  } catch (cause) {
    throw new HandfastError('STATE_INVALID', `${kept.place}: ${messageOf(cause)}; restore it from a backup`, { cause });
  }
}
