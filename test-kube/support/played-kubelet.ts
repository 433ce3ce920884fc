// A kubelet, played: pods are read back from the API server as they were injected, bound to a node, given an address and the tokens that TokenRequest really issues, and the
// commands of their containers run in a network namespace, each with its mounts, its user and its capabilities.

import type { ChildProcess } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Pod as Netns, PodNetwork } from '../../test/support/namespaces.ts';
import type { PodCgroup } from '../../test/support/pod-cgroup.ts';
import type { KubeCluster } from './kube-cluster.ts';

/** What the image's entry point is here. */
const HANDFAST = [process.execPath, fileURLToPath(new URL('../../src/main.ts', import.meta.url))];
const READY_MS = 60_000;
/** Of an application whose container says nothing of it. */
const APPLICATION = 1000;

interface Container {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly env?: readonly {
    readonly name: string;
    readonly value?: string;
    readonly valueFrom?: { readonly fieldRef?: { readonly fieldPath: string } };
  }[];
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string; readonly readOnly?: boolean }[];
  readonly restartPolicy?: string;
  readonly startupProbe?: { readonly httpGet: { readonly path: string; readonly port: number } };
  readonly securityContext?: {
    readonly runAsUser?: number;
    readonly runAsGroup?: number;
    readonly capabilities?: { readonly add?: readonly string[]; readonly drop?: readonly string[] };
  };
}

interface Volume {
  readonly name: string;
  readonly hostPath?: { readonly path: string };
  readonly emptyDir?: object;
  readonly projected?: {
    readonly sources: readonly {
      readonly downwardAPI?: { readonly items: readonly { readonly path: string; readonly fieldRef: { readonly fieldPath: string } }[] };
      readonly serviceAccountToken?: { readonly audience?: string; readonly expirationSeconds?: number; readonly path: string };
    }[];
  };
}

export interface PodObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly uid: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly spec: {
    readonly serviceAccountName: string;
    readonly nodeName?: string;
    readonly initContainers?: readonly Container[];
    readonly containers: readonly Container[];
    readonly volumes?: readonly Volume[];
  };
}

export interface PlayedPod {
  readonly object: PodObject;
  readonly netns: Netns;
  /** What a container has logged so far, a record a line. */
  records(container: string): Promise<readonly Readonly<Record<string, unknown>>[]>;
}

export interface KubeletOptions {
  readonly cluster: KubeCluster;
  readonly network: PodNetwork;
  readonly node: string;
  /** What stands for a hostPath. */
  readonly hostPaths: Readonly<Record<string, string>>;
  /** Where containers are put, a folder for each; nowhere, where none can be made. */
  readonly cgroup?: PodCgroup | undefined;
}

export class PlayedKubelet {
  readonly #options: KubeletOptions;

  constructor(options: KubeletOptions) {
    this.#options = options;
  }

  async get(namespace: string, name: string): Promise<PodObject> {
    const { stdout } = await this.#options.cluster.kubectl(['get', 'pod', name, `--namespace=${namespace}`, '--output=json']);
    return JSON.parse(stdout) as PodObject;
  }

  /** As a scheduler does. */
  async bind(namespace: string, name: string): Promise<void> {
    await this.#options.cluster.api().request({
      method: 'POST',
      path: `/api/v1/namespaces/${namespace}/pods/${name}/binding`,
      body: { apiVersion: 'v1', kind: 'Binding', metadata: { name }, target: { apiVersion: 'v1', kind: 'Node', name: this.#options.node } },
    });
  }

  /** A token bound to the pod, as kubelet asks for one. */
  async token(
    { metadata, spec }: PodObject,
    { audience, expirationSeconds = 3600 }: { audience?: string; expirationSeconds?: number },
  ): Promise<string> {
    const { status } = await this.#options.cluster.api().request({
      method: 'POST',
      path: `/api/v1/namespaces/${metadata.namespace}/serviceaccounts/${spec.serviceAccountName}/token`,
      body: {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        spec: {
          ...(audience === undefined ? {} : { audiences: [audience] }),
          expirationSeconds,
          boundObjectRef: { apiVersion: 'v1', kind: 'Pod', name: metadata.name, uid: metadata.uid },
        },
      },
    });
    return (status as { token: string }).token;
  }

  /** Until its application runs. */
  async run(namespace: string, name: string): Promise<PlayedPod> {
    const { cluster, network } = this.#options;
    await this.bind(namespace, name);
    const object = await this.get(namespace, name);
    const netns = await network.addPod(`${name}-${namespace}`.slice(0, 20));
    const dir = join(cluster.dir, 'pods', object.metadata.uid);
    const volumes = await this.#volumes(object, dir);
    await this.#report(object, { phase: 'Pending', podIP: netns.ipv4, podIPs: [{ ip: netns.ipv4 }] });
    const start = (container: Container) => this.#start(container, { object, netns, volumes, dir });
    for (const container of object.spec.initContainers ?? []) {
      const child = await start(container);
      if (container.restartPolicy === 'Always') await this.#started(container, child, netns);
      else await succeeded(container.name, child, dir);
    }
    for (const container of object.spec.containers) await start(container);
    await this.#report(object, {
      phase: 'Running',
      podIP: netns.ipv4,
      podIPs: [{ ip: netns.ipv4 }],
      conditions: [{ type: 'Ready', status: 'True' }],
    });
    return {
      object,
      netns,
      records: async (container) =>
        (await readFile(logOf(dir, container), 'utf8'))
          .split('\n')
          .flatMap((line) => (line.startsWith('{') && line.endsWith('}') ? [JSON.parse(line)] : [])),
    };
  }

  async #report({ metadata }: PodObject, status: object): Promise<void> {
    await this.#options.cluster.api().request({
      method: 'PATCH',
      path: `/api/v1/namespaces/${metadata.namespace}/pods/${metadata.name}/status`,
      body: { status },
    });
  }

  /** A folder for each volume. */
  async #volumes(object: PodObject, dir: string): Promise<ReadonlyMap<string, string>> {
    const folders = new Map<string, string>();
    for (const { name, hostPath, emptyDir, projected } of object.spec.volumes ?? []) {
      const folder = hostPath === undefined ? join(dir, 'volumes', name) : (this.#options.hostPaths[hostPath.path] ?? '');
      if (folder === '') throw new Error(`nothing stands for the host's ${hostPath?.path}`);
      if (hostPath === undefined) await mkdir(folder, { recursive: true, mode: 0o755 });
      folders.set(name, folder);
      // As kubelet makes them: for whoever runs in the pod.
      if (emptyDir !== undefined) await chmod(folder, 0o777);
      for (const { path, fieldRef } of (projected?.sources ?? []).flatMap(({ downwardAPI }) => downwardAPI?.items ?? [])) {
        const [, annotation = ''] = /^metadata\.annotations\['(.+)'\]$/.exec(fieldRef.fieldPath) ?? [];
        await writeFile(join(folder, path), object.metadata.annotations?.[annotation] ?? '', { mode: 0o644 });
      }
      for (const { serviceAccountToken } of projected?.sources ?? [])
        if (serviceAccountToken !== undefined)
          await writeFile(join(folder, serviceAccountToken.path), await this.token(object, serviceAccountToken), { mode: 0o644 });
    }
    return folders;
  }

  async #start(
    container: Container,
    { object, netns, volumes, dir }: { object: PodObject; netns: Netns; volumes: ReadonlyMap<string, string>; dir: string },
  ): Promise<ChildProcess> {
    const { runAsUser = APPLICATION, runAsGroup = runAsUser, capabilities } = container.securityContext ?? {};
    const added = (capabilities?.add ?? []).map((name) => `,+${name.toLowerCase()}`).join('');
    const mounts = (container.volumeMounts ?? []).flatMap(({ name, mountPath, readOnly = false }) => [
      volumes.get(name) ?? '',
      mountPath,
      readOnly ? 'ro' : 'rw',
    ]);
    const command = [...(container.command ?? HANDFAST), ...(container.args ?? [])];
    const user = [
      'setpriv',
      `--reuid=${runAsUser}`,
      `--regid=${runAsGroup}`,
      '--clear-groups',
      `--bounding-set=-all${added}`,
      '--no-new-privs',
      '--',
    ];
    const child = netns.spawn(['sh', '-c', MOUNT, 'sh', String(mounts.length / 3), ...mounts, ...user, ...command], {
      env: envOf(container, { object, netns }),
    });
    // In its pod's cgroup before it has done anything; its pid stays, whatever it becomes.
    if (child.pid !== undefined) this.#options.cgroup?.put(child.pid, { uid: object.metadata.uid, container: container.name });
    await mkdir(dir, { recursive: true });
    const log = createWriteStream(logOf(dir, container.name));
    child.stdout?.pipe(log);
    child.stderr?.pipe(log, { end: false });
    return child;
  }

  async #started({ name, startupProbe }: Container, child: ChildProcess, netns: Netns): Promise<void> {
    if (startupProbe === undefined) return;
    const { path, port } = startupProbe.httpGet;
    const deadline = performance.now() + READY_MS;
    for (;;) {
      const { stdout } = await netns.attempt([
        'curl',
        '-s',
        '-m',
        '2',
        '-o',
        '/dev/null',
        '-w',
        '%{http_code}',
        `http://${netns.ipv4}:${port}${path}`,
      ]);
      if (stdout === '200') return;
      if (child.exitCode !== null) throw new Error(`${name} ended with ${child.exitCode}`);
      if (performance.now() > deadline) throw new Error(`${name} did not start within ${READY_MS} ms`);
      await delay(100);
    }
  }
}

/**
 * Mounts of its own: an empty /run, and in it and elsewhere what the container mounts. `ip netns exec` has made the mount namespace.
 * Arguments: how many mounts; of each the folder, the path and ro or rw; then the command.
 */
const MOUNT = `set -e; mount -t tmpfs -o mode=755 tmpfs /run; count=$1; shift
  while [ "$count" -gt 0 ]; do
    mkdir -p "$2"; mount --bind "$1" "$2"; [ "$3" = rw ] || mount -o remount,bind,ro "$2"
    shift 3; count=$((count - 1))
  done; exec "$@"`;

function envOf({ env = [] }: Container, { object, netns }: { object: PodObject; netns: Netns }): Record<string, string> {
  const fields: Readonly<Record<string, string>> = {
    'metadata.name': object.metadata.name,
    'metadata.namespace': object.metadata.namespace,
    'status.podIP': netns.ipv4,
    'spec.nodeName': object.spec.nodeName ?? '',
  };
  return Object.fromEntries(env.map(({ name, value, valueFrom }) => [name, value ?? fields[valueFrom?.fieldRef?.fieldPath ?? ''] ?? '']));
}

async function succeeded(name: string, child: ChildProcess, dir: string): Promise<void> {
  const code = child.exitCode ?? (await new Promise<number | null>((resolve) => child.once('close', resolve)));
  if (code !== 0) throw new Error(`${name} ended with ${code}: ${await readFile(logOf(dir, name), 'utf8')}`);
}

function logOf(dir: string, container: string): string {
  return join(dir, `${container}.log`);
}
