// Who is at the other end of a unix socket: process, user, network namespace and cgroup, held by a pidfd so that a pid that was given
// away in the meantime is never taken for the process that connected.

import { closeSync, readFileSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { HandfastError, messageOf } from '../errors.ts';
import { descriptorOf } from './descriptor.ts';
import { linuxPeerKernel, type PeerKernel } from './peer-kernel.ts';

/** `uid` and `gid` as they were at connect(2); `networkNamespace` is its inode; `cgroups` all of `/proc/PID/cgroup`, `cgroup` the path of v2 in it, undefined without v2. */
export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
  readonly networkNamespace: number;
  readonly cgroup: string | undefined;
  readonly cgroups: string;
  /** False from the moment the process has ended, or the connection is closed. */
  alive(): boolean;
}

/** Throws WORKLOAD_UNKNOWN when the process is gone or cannot be seen, PLATFORM_UNSUPPORTED where there is no way to know. */
export function peerCredentials(socket: Socket, kernel: PeerKernel = linuxPeerKernel()): PeerCredentials {
  const fd = descriptorOf(socket);
  if (fd === undefined) throw new HandfastError('WORKLOAD_UNKNOWN', 'the connection was closed before its peer was known');
  const { pid, uid, gid } = kernel.credentials(fd);
  // The kernel says 0 for a process outside our pid namespace.
  if (pid <= 0)
    throw new HandfastError(
      'WORKLOAD_UNKNOWN',
      "the caller is in another pid namespace: run the agent in the host's (hostPID: true for a pod)",
    );
  const pidfd = openPidfd({ kernel, socketFd: fd, pid, uid });
  try {
    const cgroups = readFileSync(`/proc/${pid}/cgroup`, 'utf8');
    const seen = { networkNamespace: statSync(`/proc/${pid}/ns/net`).ino, cgroup: cgroupOf(cgroups), cgroups };
    // Only now: a process that lives on has had its pid all the while, so what was read was its own.
    if (kernel.hasExited(pidfd)) throw new Error('it ended while it was looked at');
    let open = true;
    socket.once('close', () => {
      open = false;
      closeSync(pidfd);
    });
    return Object.freeze({ pid, uid, gid, ...seen, alive: () => open && !kernel.hasExited(pidfd) });
  } catch (cause) {
    closeSync(pidfd);
    throw new HandfastError('WORKLOAD_UNKNOWN', `process ${pid} cannot be told any more: ${messageOf(cause)}`, { cause });
  }
}

function openPidfd({ kernel, socketFd, pid, uid }: { kernel: PeerKernel; socketFd: number; pid: number; uid: number }): number {
  const own = kernel.peerPidfd(socketFd);
  const pidfd = own === 'unsupported' ? kernel.openPidfd(pid) : own;
  if (typeof pidfd !== 'number') throw new HandfastError('WORKLOAD_UNKNOWN', `process ${pid}, which connected, has ended`);
  if (own !== 'unsupported') return pidfd;
  // By number alone (before Linux 6.5) somebody else may have the pid already: at least nobody of another user is believed.
  if (uidsOf(pid).includes(uid)) return pidfd;
  closeSync(pidfd);
  throw new HandfastError('WORKLOAD_UNKNOWN', `process ${pid} is not the one that connected as user ${uid}`);
}

/** Real, effective, saved and file system user. */
function uidsOf(pid: number): number[] {
  try {
    const [, uids = ''] = /^Uid:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return uids.split(/\s+/).map(Number);
  } catch {
    return [];
  }
}

/** The path in the one hierarchy of cgroup v2 (`0::/path`). The kernel refuses names with a newline in them. */
export function cgroupOf(text: string): string | undefined {
  return /^0::(\/.*)$/m.exec(text)?.[1];
}
