// The chart of a report: for each scenario a group of horizontal bars, CPU of the proxies per operation relative to handfast. SVG without any library.

import type { Report, Result, Scenario } from './report.ts';
import { isOurs } from './scenario.ts';

const WIDTH = 900;
const [LEFT, RIGHT, TOP] = [170, 120, 76];
const [BAR, GAP, HEAD] = [13, 4, 26];
/** In handfasts. What is longer is cut, with a mark, and its label says how long it is. */
const SCALE_END = 5;
const colours = {
  ground: '#ffffff',
  text: '#1f2328',
  faint: '#59636e',
  grid: '#d1d9e0',
  ours: '#0969da',
  variant: '#80b3f0',
  theirs: '#9a6700',
};

export function chart({ scenarios, machine }: Report): string {
  const shown = scenarios.map(relative).filter(({ bars }) => bars.length > 0);
  const parts: string[] = [];
  let y = TOP;
  for (const { name, bars } of shown) {
    parts.push(text(16, y + 16, name, { weight: 600 }));
    y += HEAD;
    for (const bar of bars) {
      parts.push(row(y, bar));
      y += BAR + GAP;
    }
    y += 6;
  }
  const height = y + 14;
  const grid = Array.from({ length: SCALE_END + 1 }, (_, step) => {
    const line = `<line x1="${x(step)}" y1="${TOP - 8}" x2="${x(step)}" y2="${y}" stroke="${colours.grid}" stroke-width="${step === 1 ? 2 : 1}"/>`;
    return line + text(x(step), TOP - 14, `${step}`, { anchor: 'middle', colour: colours.faint });
  });
  const title = 'CPU of the proxies per operation, handfast = 1; shorter is less';
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${escapeXml(title)}</title>`,
    `<rect width="${WIDTH}" height="${height}" rx="6" fill="${colours.ground}"/>`,
    text(16, 22, title, { weight: 600, size: 14 }),
    text(16, 40, `${machine.cpu}, ${machine.cores} cores`, { colour: colours.faint }),
    ...grid,
    ...parts,
    '</svg>\n',
  ].join('\n');
}

interface Bar {
  readonly result: Result;
  readonly share: number;
}

function relative({ name, results }: Scenario): { name: string; bars: Bar[] } {
  const one = results.find(({ peer }) => peer === 'handfast')?.cpuUs ?? null;
  if (one === null || one === 0) return { name, bars: [] };
  return { name, bars: results.flatMap((result) => (result.cpuUs === null ? [] : [{ result, share: result.cpuUs / one }])) };
}

function row(y: number, { result: { peer, cpuUs }, share }: Bar): string {
  const end = x(Math.min(share, SCALE_END));
  const colour = peer === 'handfast' ? colours.ours : isOurs(peer) ? colours.variant : colours.theirs;
  const cut = share > SCALE_END;
  // A bar that is cut ends in a gap.
  const gap = cut ? `<path d="M${end - 12} ${y + BAR} l4 -${BAR} h4 l-4 ${BAR} z" fill="${colours.ground}"/>` : '';
  const baseline = y + BAR - 3;
  const label = `${share.toFixed(2)}  (${time(cpuUs ?? 0)})`;
  return [
    text(LEFT - 8, baseline, peer, { anchor: 'end' }),
    `<rect x="${LEFT}" y="${y}" width="${(end - LEFT).toFixed(1)}" height="${BAR}" fill="${colour}"/>${gap}`,
    text(end + 6, baseline, label, { colour: colours.faint }),
  ].join('\n');
}

function time(us: number): string {
  if (us >= 10_000) return `${(us / 1000).toFixed(1)} ms`;
  return `${us.toFixed(us < 100 ? 1 : 0)} us`;
}

function x(share: number): number {
  return Math.round(LEFT + ((WIDTH - LEFT - RIGHT) * share) / SCALE_END);
}

interface TextStyle {
  readonly anchor?: 'middle' | 'end';
  readonly weight?: number;
  readonly size?: number;
  readonly colour?: string;
}

function text(left: number, baseline: number, content: string, style: TextStyle): string {
  const { anchor, weight, size, colour = colours.text } = style;
  const attributes = [
    `fill="${colour}"`,
    ...(anchor === undefined ? [] : [`text-anchor="${anchor}"`]),
    ...(weight === undefined ? [] : [`font-weight="${weight}"`]),
    ...(size === undefined ? [] : [`font-size="${size}"`]),
  ];
  return `<text x="${left}" y="${baseline}" ${attributes.join(' ')}>${escapeXml(content)}</text>`;
}

export function escapeXml(content: string): string {
  return content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
