// Objects from a Kubernetes API server, followed: what it refuses nowhere else is refused here one object at a time, and the rest stays in force.

import type { WatchableKubeApi } from '../../kube/api.ts';
import { Reflector } from '../../kube/reflector.ts';
import type { Log } from '../../observe/log.ts';
import { Snapshot } from '../../snapshot.ts';
import type { Reach } from '../policy-reach.ts';
import { collect } from './collect-objects.ts';
import { HostServices } from './host-services.ts';
import { type KubeReading, kubeKinds, readKube } from './kube-kinds.ts';
import type { MeshObjects, ObjectSource } from './mesh-objects.ts';
import type { ObjectEntry } from './object-kinds.ts';
import { PolicyStatus, type PolicyStatusOptions, type PolicyVerdict } from './policy-status.ts';
import { ShownReach } from './shown-reach.ts';
import { withoutConflicts } from './without-conflicts.ts';

/** An API server may be started anew; longer than this, others may know what we do not. */
const IN_TOUCH_MS = 10_000;
/** Changes come in bursts: a rollout of a Deployment is hundreds of events. */
const SETTLE_MS = 50;

export interface KubeSourceOptions extends PolicyStatusOptions {
  readonly api: WatchableKubeApi;
}

export class KubeSource implements ObjectSource {
  readonly objects = new Snapshot<MeshObjects>();
  readonly #log: Log;
  readonly #reflectors: readonly Reflector<KubeReading>[];
  #timer: NodeJS.Timeout | undefined;
  /** What was last said of each object that is not in force as it stands. */
  #said = new Map<string, string>();
  #kept: readonly ObjectEntry[] = [];
  readonly #hostServices = new HostServices();
  #running: Promise<unknown> = Promise.resolve();
  readonly #status: PolicyStatus;
  #verdicts: readonly (PolicyVerdict & { readonly name: string })[] = [];
  readonly #reach = new ShownReach();

  constructor(options: KubeSourceOptions) {
    const { api, log } = options;
    this.#log = log;
    this.#status = new PolicyStatus(options);
    this.#reflectors = kubeKinds.map(
      (kind) =>
        new Reflector<KubeReading>({
          api,
          paths: kind.paths,
          optional: kind.isPolicy,
          labelSelector: kind.labelSelector,
          read: (object, previous) => readKube(kind, object, previous),
          onChange: () => this.#schedule(),
          log,
        }),
    );
  }

  /** Resolves when everything has been listed once; nothing is published before: half a set of policies lets in whom the other half keeps out. */
  async start(signal: AbortSignal): Promise<void> {
    this.#running = Promise.all([this.#status.run(signal), ...this.#reflectors.map((reflector) => reflector.run(signal))]);
    signal.addEventListener('abort', () => clearTimeout(this.#timer), { once: true });
    this.#schedule();
    await this.objects.first(signal);
    signal.throwIfAborted();
  }

  /** After the signal has aborted: until nothing is read any more. */
  async ended(): Promise<void> {
    await this.#running;
  }

  /** Why objects are not in force as they stand, by their names. */
  get refusals(): ReadonlyMap<string, string> {
    return this.#said;
  }

  get refused(): number {
    return this.#said.size;
  }

  /** Every kind can be followed, or could a moment ago. */
  get isInTouch(): boolean {
    return this.#reflectors.every(({ lostMs }) => lostMs < IN_TOUCH_MS);
  }

  #schedule(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#reflectors.every(({ synced }) => synced)) this.#publish();
    }, SETTLE_MS);
  }

  #publish(): void {
    const problems = new Map<string, string>();
    const readings = this.#reflectors.flatMap((reflector) => [...reflector.values()]);
    for (const { name, problems: own } of readings) if (own.length > 0) problems.set(name, own.join('; '));
    const kept = this.#hostServices.withEndpoints(withoutConflicts(readings, problems), readings);
    this.#say(problems);
    // A status that was written comes back as a change; so does much else that is nothing to a registry.
    if (
      kept.length !== this.#kept.length ||
      kept.some((entry, index) => entry !== this.#kept[index]) ||
      this.objects.current === undefined
    ) {
      this.#kept = kept;
      this.objects.replace(collect(kept, []));
    }
    this.#verdicts = readings.flatMap(({ name, status }) => (status === undefined ? [] : { ...status, name, refusal: problems.get(name) }));
    this.#showStatus();
  }

  /** How many sidecars have each policy, by its name, counted for these objects: for its author to see. Once there are newer ones it is nothing to anybody. */
  showReach(reach: ReadonlyMap<string, Reach>, counted: MeshObjects): void {
    if (counted !== this.objects.current) return;
    this.#reach.count(reach, new Map(this.#verdicts.map(({ name, generation }) => [name, generation])));
    this.#showStatus();
  }

  #showStatus(): void {
    this.#status.replace(this.#verdicts.map(({ name, ...verdict }) => ({ ...verdict, reach: this.#reach.of(name, verdict.generation) })));
  }

  /** Once for each reason. */
  #say(problems: ReadonlyMap<string, string>): void {
    for (const [object, reason] of problems)
      if (this.#said.get(object) !== reason)
        this.#log.error(
          { object, reason },
          'object refused; its last good version stays in force, and where there is none a policy about who may call closes whom it selects',
        );
    this.#said = new Map(problems);
  }
}
