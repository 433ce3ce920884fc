// Connections on their way to the ledger: each is noted when its caller has a name, in the order of what became of it.

import type { OpenConnection, SightingSink } from '../observe/ledger.ts';
import type { CallerNames } from './caller-names.ts';
import type { Known } from './connection.ts';
import { sightingOf } from './sighting.ts';
import type { Ending } from './tracked.ts';

export interface SeenConnection {
  /** It has ended: by itself, or it was cut, which is a sighting of its own. */
  end(cut?: { readonly known: Known; readonly ending: Ending }): void;
}

export class NamedSightings {
  readonly #sink: SightingSink;
  readonly #names: CallerNames;

  constructor(sink: SightingSink, names: CallerNames) {
    this.#sink = sink;
    this.#names = names;
  }

  /** One that is being joined. */
  join(known: Known): SeenConnection {
    let open: OpenConnection | undefined;
    /** It ended before it was noted. */
    let missed: (() => void) | undefined;
    let name: Known['registered'];
    this.#names.name(known, (named) => {
      name = named.registered;
      open = this.#sink.join(sightingOf(named));
      missed?.();
    });
    return {
      end: (cut) => {
        const end = () => {
          if (cut === undefined) open?.end();
          else open?.end(sightingOf(name === undefined ? cut.known : { ...cut.known, registered: name }, cut.ending));
        };
        if (open === undefined) missed = end;
        else end();
      },
    };
  }

  /** One that has ended before it was joined. */
  note(known: Known, ending: Ending): void {
    this.#names.name(known, (named) => this.#sink.note(sightingOf(named, ending)));
  }

  close(): void {
    this.#names.close();
  }
}
