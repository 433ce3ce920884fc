// Real cgroups as kubelet makes them, in whatever hierarchy of this machine may be written: for processes that stand for a pod's.

import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

export class PodCgroup implements AsyncDisposable {
  /** The folder that everything is made in, as the kernel names it in /proc/PID/cgroup: what `--pod-cgroups` is told. */
  readonly root: string;
  readonly #made: string[] = [];
  readonly #dir: string;

  private constructor(mount: { readonly dir: string; readonly own: string }) {
    const name = `handfast-test-${process.pid}-${Math.random().toString(36).slice(2, 8)}`;
    this.root = `${mount.own === '/' ? '' : mount.own}/${name}`;
    this.#dir = join(mount.dir, name);
    this.#make(this.#dir);
  }

  /** A text instead where this machine lets nobody make any. */
  static create(): PodCgroup | string {
    for (const mount of mounts()) {
      try {
        return new PodCgroup(mount);
      } catch {
        // Read-only, or not root.
      }
    }
    return 'needs root and a hierarchy of cgroups that may be written';
  }

  /** Moves a process into the pod, as kubelet's runtime does when it starts a container. */
  put(pid: number, { uid, container = 'app' }: { uid: string; container?: string }): void {
    writeFileSync(join(this.folder(uid, container), 'cgroup.procs'), String(pid));
  }

  /** What a command is started by so that it is in the pod from its first moment. */
  wrap(uid: string, container = 'app'): string[] {
    return ['sh', '-c', 'echo $$ > "$0/cgroup.procs" && exec "$@"', this.folder(uid, container)];
  }

  folder(uid: string, container: string): string {
    return ['kubepods', 'burstable', `pod${uid}`, ...container.split('/')].reduce(
      (parent, name) => this.#make(join(parent, name)),
      this.#dir,
    );
  }

  /** As soon as nothing runs in it any more. */
  async [Symbol.asyncDispose](): Promise<void> {
    const deadline = performance.now() + 10_000;
    for (let folder = this.#made.pop(); folder !== undefined; folder = this.#made.pop())
      for (let gone = false; !gone; ) {
        try {
          rmdirSync(folder);
          gone = true;
        } catch (error) {
          // A process that was killed is there until it is waited for.
          if (performance.now() > deadline) throw error;
          await delay(10);
        }
      }
  }

  #make(folder: string): string {
    if (this.#made.includes(folder)) return folder;
    mkdirSync(folder);
    this.#made.push(folder);
    return folder;
  }
}

/** Of hierarchies without limits of their own: `own` is what its root is called where it is mounted. */
function mounts(): { dir: string; own: string }[] {
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [before = '', after = ''] = line.split(' - ');
      const [, , , own = '/', dir = ''] = before.split(' ');
      const [type, , options = ''] = after.split(' ');
      const isPlain = type === 'cgroup2' || (type === 'cgroup' && /(^|,)(pids|name=systemd)(,|$)/.test(options));
      return isPlain ? [{ dir, own }] : [];
    });
}
