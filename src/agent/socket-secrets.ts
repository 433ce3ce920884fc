// The secrets of registered processes without a sidecar: held for each registration from when its process asks, and let go of when it has not asked for long.

import type { Instance, ReceiptBook } from '../discovery/receipt-book.ts';
import { HandfastError } from '../errors.ts';
import { HeldSecrets } from '../identity-api/held-secrets.ts';
import type { Registration } from './workload-registrations.ts';
import type { WorkloadSession, WorkloadSessions } from './workload-sessions.ts';

interface SocketSecretsDeps {
  readonly sessions: WorkloadSessions;
  readonly receipts: ReceiptBook;
  readonly now: () => number;
}

interface Opened {
  readonly token: string;
  readonly held: Promise<HeldSecrets>;
  idle: NodeJS.Timeout;
  close(): void;
}

const IDLE_MS = 10 * 60_000;

export class SocketSecrets {
  readonly #deps: SocketSecretsDeps;
  readonly #opened = new Map<Registration, Opened>();

  constructor(deps: SocketSecretsDeps) {
    this.#deps = deps;
  }

  /** Undefined while the registration has no token. Rejects when its certificate is refused, or is somebody else's. */
  async of(registration: Registration): Promise<HeldSecrets | undefined> {
    const token = registration.token.current;
    if (token === undefined) return undefined;
    const known = this.#opened.get(registration);
    if (known?.token === token) {
      known.idle.refresh();
      return known.held;
    }
    const opened = this.#open(registration, token);
    this.#opened.set(registration, opened);
    try {
      const held = await opened.held;
      known?.close();
      return held;
    } catch (error) {
      opened.close();
      if (this.#opened.get(registration) === opened) this.#opened.delete(registration);
      if (known !== undefined && !this.#opened.has(registration)) this.#opened.set(registration, known);
      throw error;
    }
  }

  close(): void {
    for (const opened of this.#opened.values()) opened.close();
    this.#opened.clear();
  }

  #open(registration: Registration, token: string): Opened {
    const session = this.#deps.sessions.acquire(token);
    const held = this.#heldOf(registration, session);
    let closed = false;
    const close = () => {
      if (closed) return;
      closed = true;
      clearTimeout(opened.idle);
      held.then(
        (secrets) => {
          secrets.close();
          // Nobody knows any more what the process does with what it has, unless it is asked about in another registration of its ID.
          const isOpen = [...this.#opened].some(([{ spiffeId }, other]) => other !== opened && spiffeId.uri === registration.spiffeId.uri);
          if (!isOpen) this.#deps.receipts.leaves(instanceOf(registration.spiffeId.uri), { at: this.#deps.now() });
        },
        () => undefined,
      );
      session.release();
    };
    const idle = setTimeout(() => {
      close();
      if (this.#opened.get(registration) === opened) this.#opened.delete(registration);
    }, IDLE_MS).unref();
    const opened: Opened = { token, held, idle, close };
    return opened;
  }

  async #heldOf({ spiffeId, tokenFile }: Registration, session: WorkloadSession): Promise<HeldSecrets> {
    const { receipts, now } = this.#deps;
    const { uri } = (await session.ready).svid.id;
    if (uri !== spiffeId.uri) throw new HandfastError('IDENTITY_MISMATCH', `${tokenFile} does not prove ${spiffeId.uri}`);
    const { workloadSecrets: feed } = session;
    if (feed === undefined)
      throw new HandfastError('UNAVAILABLE', 'whoever is in the place of control here (istiod) has no secrets to give');
    const isCurrent = () => now() <= (session.identity.current?.svid.notAfter ?? 0);
    return new HeldSecrets({ feed, receipts, instance: instanceOf(uri), preload: [], isCurrent, now });
  }
}

function instanceOf(reporter: string): Instance {
  return { reporter, pod: '' };
}
