// Where operators' commands find the running processes, and how they print.

import { join } from 'node:path';
import { z } from 'zod';
import { printable } from '../discovery/printable.ts';
import { HandfastError } from '../errors.ts';
import { askOperator } from '../wire/operator-client.ts';

export const operatorFlags = {
  'run-dir': { kind: 'text', value: 'DIR', default: '/run/handfast', help: 'where the operator sockets are; only root may open them' },
  output: { kind: 'choice', choices: ['text', 'json'], default: 'text', help: 'how to print' },
} as const;

/** Asks a role's operator socket and reads the answer. Throws what it refused, or UNAVAILABLE. */
export async function ask<T>(
  of: { runDir: string; role: 'agent' | 'ca' | 'control' },
  request: { method: 'GET' | 'POST'; path: string; body?: object },
  schema: z.ZodType<T>,
): Promise<T> {
  const answer = await askOperator(join(of.runDir, `${of.role}-operator.sock`), request);
  const read = schema.safeParse(answer);
  if (read.success) return read.data;
  throw new HandfastError(
    'UNAVAILABLE',
    `the ${of.role} answered with something else: is it of another version? ${z.prettifyError(read.error)}`,
  );
}

export function print(output: 'text' | 'json', answer: unknown, text: () => string): void {
  process.stdout.write(output === 'json' ? `${escaped(JSON.stringify(answer, null, 2))}\n` : lines(text()));
}

/** The same JSON, without what a terminal would obey: JSON itself escapes only part of it. */
function escaped(json: string): string {
  return json.replace(/[^\P{C}\n]|[\p{Zl}\p{Zp}]/gu, (character) =>
    // By UTF-16 units, as JSON writes them.
    character
      .split('')
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
      .join(''),
  );
}

function lines(text: string): string {
  return text.split('\n').map(printable).join('\n');
}

/** Left-aligned columns; nothing for no rows. No cell makes a line of its own. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const all = [header, ...rows].map((row) => row.map(printable));
  const widths = header.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  return all
    .map(
      (row) =>
        `${row
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
