// What the kernel says of processes and of the host: CPU time and memory of a process tree, and the time the hypervisor took away.

import { readFileSync } from 'node:fs';

/** USER_HZ, which Linux fixes at 100 towards user space on every architecture that Node 24 runs on. */
const TICKS_PER_SECOND = 100;

/** utime + stime of the processes, with all their threads and living children (nginx's worker), in microseconds. */
export function cpuUs(pids: readonly number[]): number {
  return sum(tree(pids).map(ownTicks)) * (1_000_000 / TICKS_PER_SECOND);
}

/** Resident memory of the same processes. Pages that they share are counted in each. */
export function rssMb(pids: readonly number[]): number {
  return sum(tree(pids).map((pid) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0))) / 1024;
}

/** Jiffies of the whole host since boot: all of them, and those stolen from it. */
export interface HostTime {
  readonly total: number;
  readonly steal: number;
}

export function hostTime(): HostTime {
  // user nice system idle iowait irq softirq steal; guest time after them is in user already.
  const fields = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]?.trim().split(/\s+/).slice(1, 9).map(Number) ?? [];
  return { total: sum(fields), steal: fields[7] ?? 0 };
}

/** Per cent of the time between the two that was stolen. */
export function stealPercent(before: HostTime, after: HostTime): number {
  return (100 * (after.steal - before.steal)) / Math.max(1, after.total - before.total);
}

/** Fields are counted after the command's name, which may contain anything. */
function ownTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

function tree(pids: readonly number[]): number[] {
  return pids.flatMap((pid) => [
    pid,
    ...tree(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)),
  ]);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}
