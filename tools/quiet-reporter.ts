// A node:test reporter that is quiet: one line a file, failures whole, skips named, coverage by folder, and a closing count.

import { relative } from 'node:path';
import type { TestEvent } from 'node:test/reporters';
import { inspect } from 'node:util';

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  /** Of its top-level tests and suites. */
  ms: number;
}

/** Files that take longer say for how long. */
const SLOW_MS = 5_000;

export default async function* quietReporter(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const total: Counts = { passed: 0, failed: 0, skipped: 0, ms: 0 };
  const files = new Map<string, Counts>();
  for await (const event of source) {
    switch (event.type) {
      case 'test:pass':
      case 'test:fail': {
        const { file = '?', name, skip, details, nesting } = event.data;
        const counts = files.get(file) ?? { passed: 0, failed: 0, skipped: 0, ms: 0 };
        files.set(file, counts);
        if (nesting === 0) counts.ms += details.duration_ms;
        if (details.type === 'suite') {
          // Of itself a suite fails only by a hook of its own; its tests are counted one by one.
          const error = event.type === 'test:fail' ? event.data.details.error : undefined;
          if (error === undefined || Reflect.get(error, 'failureType') === 'subtestsFailed') break;
          total.failed++;
          yield `\nFAILED ${relative(process.cwd(), file)}: suite ${name}\n    ${error.stack ?? error.message}\n\n`;
          break;
        }
        const outcome = skip !== undefined && skip !== false ? 'skipped' : event.type === 'test:pass' ? 'passed' : 'failed';
        counts[outcome]++;
        total[outcome]++;
        if (outcome === 'skipped') yield `SKIPPED ${relative(process.cwd(), file)}: ${name}: ${String(skip)}\n`;
        if (outcome === 'failed' && event.type === 'test:fail') {
          const { error } = event.data.details;
          yield `\nFAILED ${relative(process.cwd(), file)}: ${name}\n${causeOf(error).replace(/^/gm, '    ')}\n\n`;
        }
        break;
      }
      case 'test:stderr':
        yield event.data.message;
        break;
      case 'test:diagnostic':
        if (event.data.level === 'warn' || event.data.level === 'error') yield `${event.data.message}\n`;
        break;
      case 'test:coverage':
        yield coverageByFolder(event.data.summary);
        break;
      default:
        break;
    }
  }
  for (const [file, { passed, failed, skipped, ms }] of [...files].sort()) {
    yield `${failed > 0 ? 'FAIL' : 'ok  '} ${relative(process.cwd(), file)}  ${passed}${failed > 0 ? `, ${failed} failed` : ''}${skipped > 0 ? `, ${skipped} skipped` : ''}${ms >= SLOW_MS ? `  ${Math.round(ms / 1000)} s` : ''}\n`;
  }
  yield `\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped\n`;
}

/** Anything can be thrown, also what has no text of its own. */
function causeOf({ cause, message }: Error): string {
  if (cause instanceof Error) return cause.stack ?? cause.message;
  if (cause === undefined || cause === null) return message;
  return typeof cause === 'string' ? cause : inspect(cause);
}

type CoverageSummary = Extract<TestEvent, { type: 'test:coverage' }>['data']['summary'];

function coverageByFolder({ files, workingDirectory, totals }: CoverageSummary): string {
  const folders = new Map<string, { covered: number; total: number }>();
  for (const file of files) {
    const folder = relative(workingDirectory, file.path).split('/').slice(0, 2).join('/');
    const sum = folders.get(folder) ?? { covered: 0, total: 0 };
    folders.set(folder, { covered: sum.covered + file.coveredLineCount, total: sum.total + file.totalLineCount });
  }
  const rows = [...folders]
    .sort()
    .map(([folder, { covered, total }]) => `  ${folder.padEnd(24)}${((100 * covered) / Math.max(1, total)).toFixed(1).padStart(6)} %`);
  return `\nlines covered\n${rows.join('\n')}\n  ${'all'.padEnd(24)}${totals.coveredLinePercent.toFixed(1).padStart(6)} %\n\n`;
}
