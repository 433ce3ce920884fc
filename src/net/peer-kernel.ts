// What the kernel says of the process at the other end of a unix socket: the system calls, and nothing decided.

import koffi from 'koffi';
import { HandfastError, messageOf } from '../errors.ts';

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** Linux 6.5 and later: a pidfd of the very process that connected, whatever has become of its pid. */
const SO_PEERPIDFD = 77;
/** Same number on every architecture (asm-generic/unistd.h). */
const SYS_PIDFD_OPEN = 434;
const POLLIN = 1;
const ENOPROTOOPT = 92;

/** As the process was when it called connect(2), in the namespaces of whoever asks. */
export interface SocketCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** The calls that `peerCredentials` makes; a test may stand in for an older kernel. */
export interface PeerKernel {
  credentials(socketFd: number): SocketCredentials;
  /** A pidfd, 'unsupported' where the kernel has no such option, 'gone' when there is no process to speak of. */
  peerPidfd(socketFd: number): number | 'unsupported' | 'gone';
  /** A pidfd of whoever has this pid now. */
  openPidfd(pid: number): number | 'gone';
  /** Whether the process has ended; also before its parent has waited for it, which signal 0 would not tell. */
  hasExited(pidfd: number): boolean;
}

/** Throws PLATFORM_UNSUPPORTED where there is no Linux with glibc. */
export function linuxPeerKernel(): PeerKernel {
  kernel ??= load();
  return kernel;
}

let kernel: PeerKernel | undefined;

function load(): PeerKernel {
  if (process.platform !== 'linux') {
    throw new HandfastError('PLATFORM_UNSUPPORTED', `callers are told apart by SO_PEERCRED and pidfds, which ${process.platform} has not`);
  }
  const { getsockopt, syscall, poll } = functions();
  return {
    credentials: (socketFd) => {
      const value = Buffer.alloc(12);
      if (getsockopt(socketFd, SOL_SOCKET, SO_PEERCRED, value, [value.length]) !== 0) {
        throw new HandfastError('WORKLOAD_UNKNOWN', `SO_PEERCRED failed with errno ${koffi.errno()}: not a unix socket?`);
      }
      return { pid: value.readInt32LE(0), uid: value.readUInt32LE(4), gid: value.readUInt32LE(8) };
    },
    peerPidfd: (socketFd) => {
      const value = Buffer.alloc(4);
      if (getsockopt(socketFd, SOL_SOCKET, SO_PEERPIDFD, value, [value.length]) === 0) return value.readInt32LE(0);
      return koffi.errno() === ENOPROTOOPT ? 'unsupported' : 'gone';
    },
    openPidfd: (pid) => {
      const fd: number = syscall(SYS_PIDFD_OPEN, pid, 0);
      return fd >= 0 ? fd : 'gone';
    },
    hasExited: (pidfd) => {
      const entry = Buffer.alloc(8);
      entry.writeInt32LE(pidfd, 0);
      entry.writeInt16LE(POLLIN, 4);
      // Anything but "nothing to report" counts as an end: also a descriptor that cannot be polled.
      return poll(entry, 1, 0) !== 0;
    },
  };
}

function functions() {
  try {
    const libc = koffi.load('libc.so.6');
    return {
      getsockopt: libc.func('int getsockopt(int fd, int level, int name, _Out_ uint8_t *value, _Inout_ uint32_t *length)'),
      syscall: libc.func('long syscall(long number, long first, long second)'),
      poll: libc.func('int poll(_Inout_ uint8_t *entries, unsigned long count, int timeout)'),
    };
  } catch (cause) {
    throw new HandfastError('PLATFORM_UNSUPPORTED', `callers cannot be told apart without glibc: ${messageOf(cause)}`, { cause });
  }
}
