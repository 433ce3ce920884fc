// What is read: a report as Markdown, whose tables line up on a terminal too.

import { judge } from './judge.ts';
import type { Report, Result, Scenario } from './report.ts';
import { operations, UNROTATED } from './scenario.ts';

/** A table whose columns are as wide as they must be; all but the first are figures. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) for (const [column, cell] of row.entries()) widths[column] = Math.max(widths[column] ?? 3, cell.length);
  const pad = (cell: string, column: number) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0));
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const rule = widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`));
  const [head = [], ...body] = rows.map((row) => line(row.map(pad)));
  return [head, line(rule), ...body].join('\n');
}

export function renderJudgement(scenarios: readonly Scenario[]): string {
  const rows = judge(scenarios).map(({ what, against, floor, goal, measured, verdict }) => [
    what,
    against,
    floor,
    goal,
    measured === null ? '-' : measured.toFixed(measured >= 20 ? 0 : 2),
    verdict,
  ]);
  return table([['', 'beside', 'floor', 'goal', 'measured', ''], ...rows]);
}

export function renderScenario({ name, results }: Scenario): string {
  const ours = results.find(({ peer }) => peer === 'handfast');
  const ran = results.filter(({ rounds }) => rounds > 0);
  const header = ['', 'rate/s', 'CPU us', 'least', 'ours/theirs', 'p50 us', 'p99 us', 'RSS MB', 'busy %', 'steal %', 'failures', 'rounds'];
  const rows = ran.map((result) => [
    result.peer,
    whole(result.rate),
    figure(result.cpuUs),
    figure(result.cpuMinUs),
    ours === undefined || ours === result ? '' : quotient(ours.cpuUs, result.cpuUs),
    whole(result.p50Us),
    whole(result.p99Us),
    (result.rssEachMb ?? []).map(whole).join(' + '),
    whole(result.busyPercent),
    figure(result.stealPercent),
    whole(result.failures),
    String(result.rounds),
  ]);
  const notes = results.flatMap(notesOf);
  return [
    `## ${name}`,
    `One operation: ${operations[name]}.`,
    ...(rows.length === 0 ? [] : [table([header, ...rows])]),
    notes.join('\n'),
  ].join('\n\n');
}

function notesOf(result: Result): string[] {
  const { peer, reason, connections, rssBeforeMb = [], kbPerConnection = [], tlsConnections } = result;
  const failure = result.raw.find((round) => round.failure !== undefined)?.failure;
  const idle = `${connections} connections; RSS before ${rssBeforeMb.map(whole).join(' + ')} MB, KB a connection ${kbPerConnection.map(figure).join(' + ')}`;
  return [
    ...(reason === undefined ? [] : [`- ${peer}: null: ${reason}`]),
    ...(connections === undefined ? [] : [`- ${peer}: ${idle}`]),
    ...(tlsConnections === undefined || tlsConnections === 0
      ? []
      : [`- ${peer}: TLS connections between the two afterwards: ${tlsConnections}`]),
    ...(failure === undefined ? [] : [`- ${peer} had failures, so its numbers are of what was left: ${failure}`]),
  ];
}

export function renderReport(report: Report): string {
  const { machine, settings, scenarios } = report;
  const versions = new Map(scenarios.flatMap(({ results }) => results.map(({ peer, version }) => [peer, version] as const)));
  const names = [...versions]
    .filter(([peer, version]) => version !== '' && peer !== UNROTATED)
    .map(([peer, version]) => `${peer} ${version}`);
  return `# Handfast beside its peers

${machine.cpu}, ${machine.cores} cores, ${machine.memoryGb} GB, ${machine.kernel}; Node.js ${machine.node} with OpenSSL ${machine.openssl}; ${machine.generator}.
Began ${settings.startedAt}; rounds of ${settings.seconds} s, ${settings.rounds} of each in turn, repeated above ${settings.maxStealPercent} % steal; medians.
${names.join(', ')}.

CPU is that of the proxies alone, for one operation; \`ours/theirs\` is the CPU of \`handfast\` over that of the row: below 1 we need less. RSS is of each
proxy, the client's first. Read [../README.md](../README.md) before you quote any of it.

${renderJudgement(scenarios)}

![CPU of the proxies per operation, relative to handfast](compare.svg)

${scenarios.map(renderScenario).join('\n\n')}
`.replaceAll(/\n{3,}/g, '\n\n');
}

function whole(value: number | null): string {
  return value === null ? '-' : value.toFixed(0);
}

function figure(value: number | null): string {
  return value === null ? '-' : value.toFixed(value < 100 ? 1 : 0);
}

function quotient(ours: number | null, theirs: number | null): string {
  return ours === null || theirs === null || theirs === 0 ? '-' : (ours / theirs).toFixed(2);
}
