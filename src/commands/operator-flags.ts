// Where operators' commands find the running processes, and how they print.

import { join } from 'node:path';
import { z } from 'zod';
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
  process.stdout.write(output === 'json' ? `${JSON.stringify(answer, null, 2)}\n` : text());
}

/** Left-aligned columns; nothing for no rows. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  if (rows.length === 0) return '';
  const all = [header, ...rows];
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
