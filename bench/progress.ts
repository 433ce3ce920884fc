// How far a bench has come: a bar on a terminal, lines elsewhere.

const WIDTH = 30;

export interface Progress {
  /** What is being done now. */
  now(what: string): void;
  /** One step is over. */
  done(steps?: number): void;
  /** A line that stays. */
  note(line: string): void;
  /** Nothing more will come. */
  end(): void;
}

/** `[#####-----]  50 %  2 min left  keepalive-64, round 2 of 3, nginx`, or less where the terminal is narrow. */
export function bar(of: { done: number; total: number; elapsedMs: number; what: string; columns: number }): string {
  const share = of.total === 0 ? 1 : Math.min(1, of.done / of.total);
  const filled = Math.round(WIDTH * share);
  // The first steps say little about the rest.
  const left = share > 0.05 && share < 1 ? `  ${Math.ceil((of.elapsedMs * (1 / share - 1)) / 60_000)} min left` : '';
  const text = `[${'#'.repeat(filled)}${'-'.repeat(WIDTH - filled)}] ${Math.floor(100 * share)
    .toString()
    .padStart(3)} %${left}  ${of.what}`;
  return text.slice(0, Math.max(0, of.columns - 1));
}

export function startProgress(total: number, to: NodeJS.WriteStream = process.stderr): Progress {
  const startedAt = performance.now();
  let done = 0;
  let what = '';
  const draw = () => {
    if (!to.isTTY) return;
    to.write(`\r\x1b[2K${bar({ done, total, elapsedMs: performance.now() - startedAt, what, columns: to.columns })}`);
  };
  return {
    now(text) {
      what = text;
      draw();
    },
    done(steps = 1) {
      done += steps;
      draw();
    },
    note(line) {
      to.write(to.isTTY ? `\r\x1b[2K  ${line}\n` : `  ${Math.floor((100 * done) / Math.max(1, total))} %  ${line}\n`);
      draw();
    },
    end() {
      if (to.isTTY) to.write('\r\x1b[2K');
    },
  };
}
