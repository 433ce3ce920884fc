// Secrets and their policies from a Kubernetes API server. Each object stands for itself: what cannot be read is refused, in the log and in its status, and its last good
// version stays; a policy that could never be read entitles nobody.

import type { KubeObject, WatchableKubeApi } from '../../kube/api.ts';
import { Reflector } from '../../kube/reflector.ts';
import type { Log } from '../../observe/log.ts';
import { Snapshot } from '../../snapshot.ts';
import { isJsonObject } from '../../spiffe/strict-json.ts';
import { isDeeperThan } from '../objects/kube-kinds.ts';
import { PolicyStatus, type PolicyStatusOptions, type StatusSubject, statusSubject } from '../objects/policy-status.ts';
import { readSecretEntry, type SecretEntry, type SecretKind, secretKinds } from './secret-kinds.ts';
import { type SecretSource, type SecretWorld, secretWorld } from './secret-world.ts';
import { UnchangingVersions } from './unchanging-versions.ts';

const PATHS: Readonly<Record<SecretKind, string>> = {
  WorkloadSecret: '/apis/handfast.io/v1alpha1/workloadsecrets',
  SecretPolicy: '/apis/handfast.io/v1alpha1/secretpolicies',
};
const IN_TOUCH_MS = 10_000;
/** Objects of up to a third of a megabyte each. */
const PAGE = 50;
const MAX_DEPTH = 10;

const OTHERWISE = 'Its last version that could be read stays in force; if there was none, nobody has anything by it';

interface Kept {
  readonly lastGood: SecretEntry | undefined;
  /** Why the present version is not in force. */
  readonly refusal: string | undefined;
  readonly status: StatusSubject | undefined;
}

export interface KubeSecretsOptions extends PolicyStatusOptions {
  readonly api: WatchableKubeApi;
  readonly trustDomain: string;
}

export class KubeSecrets implements SecretSource {
  readonly world = new Snapshot<SecretWorld>();
  readonly #reflectors: readonly Reflector<Kept>[];
  readonly #versions = new UnchangingVersions();
  readonly #trustDomain: string;
  readonly #log: Log;
  readonly #status: PolicyStatus;

  constructor(options: KubeSecretsOptions) {
    const { api, trustDomain, log } = options;
    this.#trustDomain = trustDomain;
    this.#log = log;
    this.#status = new PolicyStatus(options);
    this.#reflectors = secretKinds.map(
      (kind) =>
        new Reflector<Kept>({
          api,
          paths: [PATHS[kind]],
          optional: true,
          page: PAGE,
          read: (object, previous) => this.#read(kind, object, previous),
          onChange: () => this.#publish(),
          log,
        }),
    );
  }

  async start(signal: AbortSignal): Promise<void> {
    void this.#status.run(signal);
    for (const reflector of this.#reflectors) void reflector.run(signal);
    await this.world.first(signal);
    signal.throwIfAborted();
  }

  get isInTouch(): boolean {
    return this.#reflectors.every(({ lostMs }) => lostMs < IN_TOUCH_MS);
  }

  /** Not before both have been listed: a secret whose policies are not known yet would be taken from everybody. */
  #publish(): void {
    if (!this.#reflectors.every(({ synced }) => synced)) return;
    const kept = this.#reflectors.flatMap((reflector) => [...reflector.values()]);
    this.#status.replace(
      kept.flatMap(({ status, refusal }) => (status === undefined ? [] : [{ ...status, refusal, otherwise: OTHERWISE }])),
    );
    const entries = kept.flatMap(({ lastGood }) => lastGood ?? []);
    this.world.replace(
      secretWorld({
        secrets: entries.flatMap((entry) => (entry.kind === 'WorkloadSecret' ? [entry.object] : [])),
        policies: entries.flatMap((entry) => (entry.kind === 'SecretPolicy' ? [entry.object] : [])),
      }),
    );
  }

  #read(kind: SecretKind, object: KubeObject, previous: Kept | undefined): Kept {
    const { namespace, name } = isJsonObject(object.metadata) ? object.metadata : {};
    const status = statusSubject(PATHS[kind], object);
    const refuse = (refusal: string): Kept => {
      // Once for each reason: a status that was written comes back as a change.
      if (previous?.refusal !== refusal)
        this.#log.error({ object: `${kind} ${String(namespace)}/${String(name)}`, reason: refusal }, `object refused. ${OTHERWISE}`);
      return { lastGood: previous?.lastGood, refusal, status };
    };
    if (isDeeperThan(object.spec, MAX_DEPTH)) return refuse(`nested more than ${MAX_DEPTH} levels deep`);
    const { apiVersion, spec } = object;
    const read = readSecretEntry(kind, { apiVersion, kind, metadata: { namespace, name }, spec }, this.#trustDomain);
    if ('problems' in read) return refuse(read.problems.join('; '));
    const objection = read.entry.kind === 'WorkloadSecret' ? this.#versions.objection(read.entry.object) : undefined;
    if (objection !== undefined) return refuse(objection);
    if (read.entry.kind === 'WorkloadSecret') this.#versions.learn(read.entry.object);
    return { lastGood: read.entry, refusal: undefined, status };
  }
}
