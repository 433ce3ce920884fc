// How many files a process of the bench may have open.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Thousands of connections need more files than is usual; where the limit cannot be raised, what is allowed is used. */
const WANTED_FILES = 65_536;
const raises = spawnSync('prlimit', [`--nofile=${WANTED_FILES}:${WANTED_FILES}`, 'true'], { stdio: 'ignore' }).status === 0;
/** To be put before a command. */
export const raisingFileLimit = raises
  ? ['prlimit', `--nofile=${WANTED_FILES}:${WANTED_FILES}`]
  : ['sh', '-c', 'ulimit -Sn $(ulimit -Hn); exec "$@"', 'sh'];

/** How many files a process of the testbed may have open. */
export function fileLimit(): number {
  const hard = Number(/^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 1_024);
  return raises ? WANTED_FILES : hard;
}
