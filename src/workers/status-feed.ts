// What the main thread must know of a worker to speak for it: whether it can serve, and who is connected to it; said when it changes, and as a sign of life.

import type { FromWorker, LivePeers } from './messages.ts';

const EVERY_MS = 500;

type Status = Extract<FromWorker, { kind: 'status' }>;

export class StatusFeed {
  readonly #of: { missing(): readonly string[]; peers(): LivePeers };
  readonly #send: (status: Status) => void;
  readonly #timer: NodeJS.Timeout;
  #said = '';

  constructor(of: { missing(): readonly string[]; peers(): LivePeers }, send: (status: Status) => void) {
    this.#of = of;
    this.#send = send;
    this.#timer = setInterval(() => this.say(), EVERY_MS).unref();
    this.say();
  }

  say(): void {
    const peers = this.#of.peers();
    const text = JSON.stringify(peers);
    const status: Status = { kind: 'status', missing: this.#of.missing() };
    this.#send(text === this.#said ? status : { ...status, peers });
    this.#said = text;
  }

  close(): void {
    clearInterval(this.#timer);
    this.say();
  }
}
