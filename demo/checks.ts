// What the demo says on the screen, and the checks it keeps count of.

const colour = process.stdout.isTTY === true;
const paint = (code: number, text: string) => (colour ? `\x1b[${code}m${text}\x1b[0m` : text);

export class Checks {
  total = 0;
  failed = 0;
  readonly #startedAt = Date.now();

  get seconds(): number {
    return Math.round((Date.now() - this.#startedAt) / 100) / 10;
  }

  heading(text: string): void {
    process.stdout.write(`\n${paint(1, text)}  ${paint(2, `${this.seconds} s`)}\n`);
  }

  say(text: string): void {
    process.stdout.write(`  ${text}\n`);
  }

  /** Shows and counts one check. `detail` stands behind it either way. */
  check(what: string, passed: boolean, detail = ''): void {
    this.total++;
    if (!passed) this.failed++;
    process.stdout.write(`  ${passed ? paint(32, 'ok  ') : paint(31, 'FAIL')} ${what}${detail === '' ? '' : paint(2, `  ${detail}`)}\n`);
  }

  summary(): string {
    const verdict =
      this.failed === 0 ? paint(32, `all ${this.total} checks passed`) : paint(31, `${this.failed} of ${this.total} checks failed`);
    return `\n${verdict} in ${this.seconds} s\n`;
  }
}
