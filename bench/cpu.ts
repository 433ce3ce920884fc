// What the kernel says of processes and of the host: CPU time and memory of a process tree, and the time the hypervisor took away.

import { readdirSync, readFileSync } from 'node:fs';
import { sum } from './statistics.ts';

/** USER_HZ, which Linux fixes at 100 towards user space on every architecture that Node 24 runs on. */
const TICKS_PER_SECOND = 100;

/** utime + stime of the processes, with all their threads and living children (nginx's worker), in microseconds. */
export function cpuUs(pids: readonly number[]): number {
  return sum(tree(pids).map(ownTicks)) * (1_000_000 / TICKS_PER_SECOND);
}

/** The same to the nanosecond, but only of threads that live: for what is shorter than a few ticks. */
export function fineCpuUs(pids: readonly number[]): number {
  const threads = tree(pids).flatMap((pid) => readdirSync(`/proc/${pid}/task`).map((tid) => `/proc/${pid}/task/${tid}/schedstat`));
  return Math.round(sum(threads.map((file) => Number(readFileSync(file, 'utf8').split(' ')[0]))) / 1000);
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

/** TCP connections of the process's network namespace that are established to a port of a host. */
export function established(pid: number, to: { host: string; port: number }): number {
  const bytes = to.host.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
  // The address is one number in the machine's order; Node's machines are little-endian.
  const ipv4 = bytes.toReversed().join('').toUpperCase();
  const port = to.port.toString(16).padStart(4, '0').toUpperCase();
  const remote = [`${ipv4}:${port}`, `0000000000000000FFFF0000${ipv4}:${port}`];
  const lines = ['tcp', 'tcp6'].flatMap((file) => readFileSync(`/proc/${pid}/net/${file}`, 'utf8').split('\n').slice(1));
  return lines.map((line) => line.trim().split(/\s+/)).filter(([, , address = '', state]) => state === '01' && remote.includes(address))
    .length;
}

/** Fields are counted after the command's name, which may contain anything. */
function ownTicks(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

/** The processes with their living descendants. */
export function tree(pids: readonly number[]): number[] {
  return pids.flatMap((pid) => [
    pid,
    ...tree(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)),
  ]);
}
