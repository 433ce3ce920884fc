// Which pod a process is in, told by its cgroups: kubelet puts every container below a folder of its pod, and nobody but root can move a process elsewhere.

import { HandfastError } from '../errors.ts';
import { readJws } from '../spiffe/jwt.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';

const QOS = [[], ['burstable'], ['besteffort']] as const;
/** A UUID, or the digest that a static pod has; systemd writes `_` for `-`. */
const UID = /^pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})$/;

/** Where pods are, from the root on: the folders in front of a pod's own, and what its name begins with. */
interface Parent {
  readonly folders: readonly string[];
  readonly prefix: string;
  readonly suffix: string;
}

export class PodCgroups {
  readonly #parents: readonly Parent[];

  /** `root`: kubelet's --cgroup-root, such as `/`. Throws CONFIG_INVALID for what is no such path. */
  constructor(root: string) {
    if (!/^\/([^/]+(\/[^/]+)*)?$/.test(root) || /(^|\/)\.{1,2}(\/|$)/.test(root))
      throw new HandfastError('CONFIG_INVALID', `--pod-cgroups ${JSON.stringify(root)}: an absolute path, as kubelet's --cgroup-root: /`);
    const above = root.split('/').filter((name) => name !== '');
    this.#parents = QOS.flatMap((qos) => [cgroupfs([...above, 'kubepods', ...qos]), systemd([...above, 'kubepods', ...qos])]);
  }

  /**
   * The uid of the pod that a process is in, by its `/proc/PID/cgroup`: v1 or v2, cgroupfs or systemd. Undefined for one that is in none, or in two. Only the segment where kubelet puts a pod counts: what
   * stands below is the container's, and may have any name.
   */
  podOf(text: string): string | undefined {
    const found = new Set<string>();
    for (const line of text.split('\n')) {
      // `hierarchy:controllers:path`, where the path may have colons too.
      const path = /^\d+:[^:]*:(\/.*)$/.exec(line)?.[1];
      const uid = path === undefined ? undefined : this.#inPath(path);
      if (uid !== undefined) found.add(uid);
    }
    const [uid] = found;
    return found.size === 1 ? uid : undefined;
  }

  #inPath(path: string): string | undefined {
    const segments = path.split('/').slice(1);
    const down = segments.findIndex((name) => name !== '..');
    const below = segments.slice(Math.max(down, 0));
    for (const { folders, prefix, suffix } of this.#parents) {
      // Seen out of a cgroup namespace, the way leads up first, and then down from wherever the two part.
      for (let from = 0; from <= (down > 0 ? folders.length : 0); from++) {
        const way = folders.slice(from);
        const name = below[way.length];
        if (name === undefined || way.some((folder, index) => below[index] !== folder)) continue;
        if (!name.startsWith(prefix) || !name.endsWith(suffix)) continue;
        const uid = UID.exec(name.slice(prefix.length, name.length - suffix.length))?.[1];
        if (uid !== undefined) return uid.replaceAll('_', '-');
      }
    }
    return undefined;
  }
}

function cgroupfs(names: readonly string[]): Parent {
  return { folders: names, prefix: '', suffix: '' };
}

/** `kubepods.slice/kubepods-burstable.slice`: each slice has its parent's name in its own, and no other `-`. */
function systemd(names: readonly string[]): Parent {
  const escaped = names.map((name) => name.replaceAll('-', '_'));
  const folders = escaped.map((_, index) => `${escaped.slice(0, index + 1).join('-')}.slice`);
  return { folders, prefix: `${escaped.join('-')}-`, suffix: '.slice' };
}

/** The pod that a token is bound to. Its word is worth nothing before the CA has proven the token. */
export function podOfToken(token: string): string | undefined {
  try {
    const { 'kubernetes.io': kubernetes } = readJws(token).claims;
    const pod = isJsonObject(kubernetes) && isJsonObject(kubernetes.pod) ? kubernetes.pod : {};
    return typeof pod.uid === 'string' && pod.uid !== '' ? pod.uid : undefined;
  } catch {
    // No token of an API server.
    return undefined;
  }
}
