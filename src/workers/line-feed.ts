// A worker's log lines on their way to the main thread, which alone writes them: two writers would tear one another's lines.

const EVERY_MS = 100;
const MAX_CHARACTERS = 16 * 1024;

export class LineFeed {
  readonly #send: (lines: string) => void;
  readonly #timer: NodeJS.Timeout;
  #lines = '';

  constructor(send: (lines: string) => void) {
    this.#send = send;
    this.#timer = setInterval(() => this.flush(), EVERY_MS).unref();
  }

  write(line: string): void {
    this.#lines += line;
    if (this.#lines.length >= MAX_CHARACTERS) this.flush();
  }

  flush(): void {
    if (this.#lines === '') return;
    const lines = this.#lines;
    this.#lines = '';
    this.#send(lines);
  }

  close(): void {
    clearInterval(this.#timer);
    this.flush();
  }
}
