// Secrets and their policies from a Kubernetes API server. Each object stands for itself: what cannot be read is refused, in the log and in its status, and its last good
// version stays; a policy that could never be read entitles nobody.

import type { KubeObject, WatchableKubeApi } from '../../kube/api.ts';
import { Reflector } from '../../kube/reflector.ts';
import type { Log } from '../../observe/log.ts';
import type { WorkloadSecret } from '../../policy/workload-secret.ts';
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
  readonly #reflectors: Readonly<Record<SecretKind, Reflector<Kept>>>;
  /** What may come into force: the policies were listed after it had come. */
  readonly #judged = new WeakSet<WorkloadSecret>();
  #judging = false;
  readonly #versions = new UnchangingVersions();
  readonly #trustDomain: string;
  readonly #log: Log;
  readonly #status: PolicyStatus;

  constructor(options: KubeSecretsOptions) {
    const { api, trustDomain, log } = options;
    this.#trustDomain = trustDomain;
    this.#log = log;
    this.#status = new PolicyStatus(options);
    const reflector = (kind: SecretKind) =>
      new Reflector<Kept>({
        api,
        paths: [PATHS[kind]],
        optional: true,
        page: PAGE,
        read: (object, previous) => this.#read(kind, object, previous),
        onChange: () => this.#publish(),
        log,
      });
    this.#reflectors = { WorkloadSecret: reflector('WorkloadSecret'), SecretPolicy: reflector('SecretPolicy') };
  }

  async start(signal: AbortSignal): Promise<void> {
    void this.#status.run(signal);
    for (const kind of secretKinds) void this.#reflectors[kind].run(signal);
    await this.world.first(signal);
    signal.throwIfAborted();
  }

  get isInTouch(): boolean {
    return secretKinds.every((kind) => this.#reflectors[kind].lostMs < IN_TOUCH_MS);
  }

  /** Not before both have been listed: a secret whose policies are not known yet would be taken from everybody. */
  #publish(): void {
    if (!secretKinds.every((kind) => this.#reflectors[kind].synced)) return;
    const kept = secretKinds.flatMap((kind) => [...this.#reflectors[kind].values()]);
    this.#status.replace(
      kept.flatMap(({ status, refusal }) => (status === undefined ? [] : [{ ...status, refusal, otherwise: OTHERWISE }])),
    );
    const entries = kept.flatMap(({ lastGood }) => lastGood ?? []);
    const secrets = entries.flatMap((entry) => (entry.kind === 'WorkloadSecret' ? [entry.object] : []));
    const unjudged = secrets.filter((secret) => !this.#judged.has(secret));
    if (unjudged.length > 0) void this.#judge(unjudged);
    const before = this.world.current?.secrets;
    if (before === undefined && unjudged.length > 0) return;
    // What is gone is gone at once; what is new waits for its policies, with the one before in its place.
    const inForce = (secret: WorkloadSecret) => (this.#judged.has(secret) ? secret : before?.get(secret.key));
    this.world.replace(
      secretWorld({
        secrets: secrets.flatMap((secret) => inForce(secret) ?? []),
        policies: entries.flatMap((entry) => (entry.kind === 'SecretPolicy' ? [entry.object] : [])),
      }),
    );
  }

  /** Two watches lag each for itself: a new version must not be handed out by policies from before it. */
  async #judge(secrets: readonly WorkloadSecret[]): Promise<void> {
    if (this.#judging) return;
    this.#judging = true;
    await this.#reflectors.SecretPolicy.listAnew();
    this.#judging = false;
    for (const secret of secrets) this.#judged.add(secret);
    this.#publish();
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
    const { lastGood } = previous ?? {};
    // A status that was written is no change of a secret.
    const isSame = lastGood !== undefined && read.entry.kind === 'WorkloadSecret' && isSameSecret(lastGood, read.entry.object);
    return { lastGood: isSame ? lastGood : read.entry, refusal: undefined, status };
  }
}

/** By names alone: that the contents of a version have changed was objected to before. */
function isSameSecret({ kind, object }: SecretEntry, { current, versions }: WorkloadSecret): boolean {
  return (
    kind === 'WorkloadSecret' &&
    object.current === current &&
    object.versions.size === versions.size &&
    [...versions.keys()].every((version) => object.versions.has(version))
  );
}
