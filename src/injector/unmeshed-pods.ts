// The pods of a cluster that run unmeshed, followed: each said once, and counted by namespace. Whoever was made before its namespace was labelled, or past the webhook, stays open until it is made anew.

import type { WatchableKubeApi } from '../kube/api.ts';
import { type KubeLog, Reflector } from '../kube/reflector.ts';
import { type MetricFamily, type Sample, single } from '../observe/metrics-text.ts';
import { isJsonObject } from '../spiffe/strict-json.ts';
import { type Candidate, candidateOf, type Judging, type UnmeshedPod, unmeshedOf } from './unmeshed.ts';

/** For the API that is asked: a namespace full of large pods must not take the webhook's memory. */
export const UNMESHED_BOUNDS = { maxAnswerBytes: 8 * 1024 * 1024 } as const;
const PAGE = 100;

/** Changes come in bursts. */
const SETTLE_MS = 200;
/** At a time; the rest is in the metrics and in `handfast unmeshed`. */
const MAX_SAID = 100;
const MAX_NAMESPACES = 200;

interface KnownNamespace {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

export class UnmeshedPods {
  readonly #of: Judging & { readonly log: KubeLog };
  readonly #pods: Reflector<Candidate>;
  readonly #namespaces: Reflector<KnownNamespace>;
  /** Judged again only where pod or namespace have changed. */
  readonly #judged = new WeakMap<Candidate, { readonly by: KnownNamespace; readonly pod: UnmeshedPod | undefined }>();
  #timer: NodeJS.Timeout | undefined;
  #current: readonly UnmeshedPod[] | undefined;
  #said = new Set<string>();
  #first: PromiseWithResolvers<readonly UnmeshedPod[]> = Promise.withResolvers();

  constructor(of: Judging & { api: WatchableKubeApi; log: KubeLog }) {
    this.#of = of;
    const { api, log, config } = of;
    const following = { api, log, page: PAGE, onChange: () => this.#schedule() };
    this.#pods = new Reflector({ ...following, paths: ['/api/v1/pods'], read: (object) => candidateOf(object, config) });
    this.#namespaces = new Reflector({ ...following, paths: ['/api/v1/namespaces'], read: namespaceOf });
  }

  /** By namespace and name; undefined until the API server has told of all pods. */
  get current(): readonly UnmeshedPod[] | undefined {
    return this.#current;
  }

  /** Once all pods have been heard of. */
  get first(): Promise<readonly UnmeshedPod[]> {
    return this.#first.promise;
  }

  /** Follows until the signal aborts; never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all([this.#pods.run(signal), this.#namespaces.run(signal)]);
    clearTimeout(this.#timer);
  }

  families(): MetricFamily[] {
    const counts = new Map<string, number>();
    for (const { namespace } of this.#current ?? []) {
      const label = counts.has(namespace) || counts.size < MAX_NAMESPACES ? namespace : '';
      counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    const samples = [...counts].map(([namespace, value]): Sample => ({ labels: { namespace }, value }));
    const known = { name: 'handfast_unmeshed_pods_known', type: 'gauge', help: '1 once the API server has told of all pods.' } as const;
    return [
      {
        name: 'handfast_unmeshed_pods',
        type: 'gauge',
        help: 'Pods that should have the sidecar, and have none; an empty namespace stands for those that find no room.',
        samples,
      },
      single(known, this.#current === undefined ? 0 : 1),
    ];
  }

  #schedule(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#pods.synced && this.#namespaces.synced) this.#judge();
    }, SETTLE_MS);
  }

  #judge(): void {
    const namespaces = new Map([...this.#namespaces.values()].map((namespace) => [namespace.name, namespace]));
    const found = [...this.#pods.values()].flatMap((candidate) => {
      const namespace = namespaces.get(candidate.namespace);
      // One that is not known yet is on its way, and one that is gone takes its pods along.
      return namespace === undefined ? [] : (this.#judgedOf(candidate, namespace) ?? []);
    });
    found.sort((a, b) => compare(a.namespace, b.namespace) || compare(a.name, b.name));
    this.#current = found;
    this.#say(found);
    this.#first.resolve(found);
  }

  #judgedOf(candidate: Candidate, by: KnownNamespace): UnmeshedPod | undefined {
    const known = this.#judged.get(candidate);
    if (known?.by === by) return known.pod;
    const pod = unmeshedOf(candidate, { ...this.#of, namespaceLabels: by.labels });
    this.#judged.set(candidate, { by, pod });
    return pod;
  }

  /** Once for each pod. */
  #say(found: readonly UnmeshedPod[]): void {
    const fresh = found.filter(({ uid }) => !this.#said.has(uid));
    for (const { namespace, name, owner, why, wayOut } of fresh.slice(0, MAX_SAID))
      this.#of.log.warn({ namespace, pod: name, owner, why, wayOut }, 'a pod runs unmeshed');
    if (fresh.length > MAX_SAID)
      this.#of.log.warn({ more: fresh.length - MAX_SAID }, 'more pods run unmeshed: handfast unmeshed names them');
    this.#said = new Set(found.map(({ uid }) => uid));
  }
}

/** The same object as long as its labels are the same. */
function namespaceOf(object: Readonly<Record<string, unknown>>, previous: KnownNamespace | undefined): KnownNamespace {
  const metadata = isJsonObject(object.metadata) ? object.metadata : {};
  const labels = Object.fromEntries(Object.entries(isJsonObject(metadata.labels) ? metadata.labels : {}).map(([k, v]) => [k, String(v)]));
  return previous !== undefined && JSON.stringify(previous.labels) === JSON.stringify(labels)
    ? previous
    : { name: String(metadata.name), labels };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
