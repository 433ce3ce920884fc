// What each sidecar of this node has confirmed of its own pod's policies, for those who have written them.

import { podUid } from '../policy/model.ts';
import { parseSpiffeId, workloadOf } from '../spiffe/spiffe-id.ts';
import type { HeldPolicies } from '../wire/gen/handfast/report/v1/report.ts';
import { ownPoliciesDigest } from './own-policies.ts';
import type { StreamAnswers } from './resource-view.ts';
import { typeUrls } from './type-urls.ts';

/** The sidecar's own word for itself, as its streams begin with it. */
const SIDECAR_NODE = /^sidecar~([a-z0-9-]{1,63})~([a-z0-9.-]{1,253})$/;
const NOTHING: ReadonlyMap<string, string> = new Map();

/** One stream of a sidecar: who it says it is, and what it has taken. */
export class TakenByStream implements StreamAnswers {
  /** SPIFFE ID that it has proven. */
  readonly #reporter: string;
  readonly #held = new Map<string, ReadonlyMap<string, string>>();
  #pod: string | undefined;
  /** Told of each change. */
  onSettled: () => void = () => undefined;

  constructor(reporter: string) {
    this.#reporter = reporter;
  }

  hear({ node }: { readonly node?: { readonly id: string } | undefined }): void {
    const [, namespace, name] = SIDECAR_NODE.exec(node?.id ?? '') ?? [];
    // Its word, believed within its own namespace alone.
    if (namespace !== undefined && namespace === workloadOf(parseSpiffeId(this.#reporter))?.namespace) this.#pod ??= `${namespace}/${name}`;
  }

  settled({ typeUrl, held }: { typeUrl: string; held: ReadonlyMap<string, string> }): void {
    this.#held.set(typeUrl, held);
    this.onSettled();
  }

  /** Undefined while it is nobody's, or has no policy yet. */
  get taken(): HeldPolicies | undefined {
    const pod = this.#pod;
    const policies = this.#held.get(typeUrls.trafficPolicy) ?? NOTHING;
    const trafficPolicy = pod === undefined ? undefined : policies.get(podUid(pod));
    if (pod === undefined || trafficPolicy === undefined) return undefined;
    const digest = ownPoliciesDigest({ trafficPolicy, authorizations: this.#held.get(typeUrls.authorization) ?? NOTHING });
    return { pod, reporter: this.#reporter, digest };
  }
}

export class ConfirmedPolicies {
  readonly #streams = new Set<TakenByStream>();
  #revision = 0;

  /** Grows with each change. */
  get revision(): number {
    return this.#revision;
  }

  /** Until the returned function is called. */
  follow(stream: TakenByStream): () => void {
    const changed = () => {
      this.#revision++;
    };
    stream.onSettled = changed;
    this.#streams.add(stream);
    return () => {
      this.#streams.delete(stream);
      changed();
    };
  }

  get all(): readonly HeldPolicies[] {
    return [...this.#streams].flatMap(({ taken }) => taken ?? []);
  }
}
