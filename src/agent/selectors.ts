// What a registration wants of a process before it takes it for its workload: all that it names must hold.

import { type Stats, statSync } from 'node:fs';
import type { PeerCredentials } from '../net/peer-credentials.ts';

export interface Selectors {
  /** A path that stands for the namespace, such as /run/netns/httpbin or /proc/<pid>/ns/net. */
  readonly networkNamespace?: string | undefined;
  /** A path of cgroup v2; its descendants match too. */
  readonly cgroup?: string | undefined;
  readonly uid?: number | undefined;
}

export type SelectedPeer = Pick<PeerCredentials, 'uid' | 'networkNamespace' | 'cgroup'>;

const OWN = '/proc/self/ns/net';

/** An empty selector matches nobody. */
export function matches({ networkNamespace, cgroup, uid }: Selectors, peer: SelectedPeer): boolean {
  if (networkNamespace === undefined && cgroup === undefined && uid === undefined) return false;
  if (uid !== undefined && uid !== peer.uid) return false;
  if (cgroup !== undefined && peer.cgroup !== cgroup && peer.cgroup?.startsWith(`${cgroup}/`) !== true) return false;
  if (networkNamespace === undefined) return true;
  // Looked up each time: a namespace that was made anew under its name is another one. One that is not there is nobody's.
  const inode = networkNamespaceOf(networkNamespace);
  if (inode === undefined || inode !== peer.networkNamespace) return false;
  // It may have become the host's since the file was read.
  return !standsAlone({ networkNamespace, cgroup, uid }) || inode !== networkNamespaceOf(OWN);
}

/** Why this selector must not be used as it stands, as the system is now; undefined when there is nothing against it. */
export function objection(selectors: Selectors): string | undefined {
  const { networkNamespace } = selectors;
  if (networkNamespace === undefined) return undefined;
  const found = statOf(networkNamespace);
  // It may be made later.
  if (found === undefined) return undefined;
  const own = statOf(OWN);
  if (found.dev !== own?.dev) return `${networkNamespace} is no network namespace`;
  if (!standsAlone(selectors) || found.ino !== own.ino) return undefined;
  return `${networkNamespace} is the agent's own network namespace, which every process of the host shares: add cgroup or uid`;
}

function standsAlone({ cgroup, uid }: Selectors): boolean {
  return cgroup === undefined && uid === undefined;
}

function networkNamespaceOf(path: string): number | undefined {
  const [found, own] = [statOf(path), statOf(OWN)];
  // Another file system's file may have the same number.
  return found !== undefined && found.dev === own?.dev ? found.ino : undefined;
}

/** Looked up once in a turn of the event loop: a change of the trust asks for every registration on behalf of every stream at once. */
let looked: Map<string, Stats | undefined> | undefined;

function statOf(path: string): Stats | undefined {
  if (looked === undefined) {
    looked = new Map();
    setImmediate(() => {
      looked = undefined;
    });
  }
  if (!looked.has(path)) looked.set(path, statNow(path));
  return looked.get(path);
}

/** One that cannot be looked at is not there: it must not keep the other registrations from being judged. */
function statNow(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}
