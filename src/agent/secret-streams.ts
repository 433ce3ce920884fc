// The streams by which workloads ask their agent for secrets: what each may ask for, and the receipts that its answers are.

import { status } from '@grpc/grpc-js';
import { AskedSecrets } from '../discovery/asked-secrets.ts';
import { believedPod } from '../discovery/receipt-book.ts';
import type { ResourceView, StreamAnswers } from '../discovery/resource-view.ts';
import { meansSecret } from '../policy/secret-name.ts';
import { statusError } from '../wire/grpc.ts';
import type { InstanceHoldings, StreamHoldings } from './instance-holdings.ts';
import type { ServedWorkload } from './stream-session.ts';

/** What a request of either protocol says of names: all of them, or those that come. */
export interface AskedFor {
  readonly names: readonly string[];
  readonly nodeId: string | undefined;
  /** It holds something from an earlier stream. */
  readonly holds: boolean;
}

/** Single values of one secret are names, too. */
const NEW_NAMES = { burst: 512, perSecond: 10 };
const NODE_ID = /^sidecar~([a-z0-9-]{1,63})~([a-z0-9.-]{1,253})$/;

/**
 * One stream of a workload, of which its first request says whether it is about certificates or about secrets: both on one would make the answer about one wait for
 * the other. `certificates`: what it is about otherwise.
 */
export class SecretStream implements ResourceView {
  readonly #workload: ServedWorkload;
  readonly #certificates: ResourceView;
  readonly #deps: { readonly holdings: InstanceHoldings; readonly saysGone: boolean };
  #secrets: AskedSecrets | undefined;
  readonly #subscribers = new Set<(typeUrl: string, names?: readonly string[]) => void>();
  #stopListening: () => void = () => undefined;
  #holdings: StreamHoldings | undefined;
  /** Which version of a resource the client has by its answers, by name. */
  readonly #held = new Map<string, string | undefined>();
  #isFirst = true;

  constructor(workload: ServedWorkload, deps: { holdings: InstanceHoldings; saysGone: boolean }) {
    this.#workload = workload;
    this.#certificates = workload.session.secrets;
    this.#deps = deps;
  }

  /** Whether the request is about secrets. Throws the status to end the stream with. */
  admit({ names, nodeId, holds }: AskedFor): boolean {
    const secrets = names.filter(meansSecret).length;
    if (this.#isFirst) {
      this.#isFirst = false;
      if (secrets > 0) this.#begin(nodeId);
    }
    if (this.#secrets === undefined ? secrets > 0 : secrets < names.length)
      throw statusError(status.INVALID_ARGUMENT, 'certificates and secrets are asked for on streams of their own');
    if (this.#deps.saysGone && this.#secrets !== undefined) {
      if (names.length === 0) throw statusError(status.INVALID_ARGUMENT, 'secrets are asked for by name');
      this.#secrets.replaceNames(names, { holds });
    }
    return this.#secrets !== undefined;
  }

  get asked() {
    return this.#secrets?.asked;
  }

  resources(typeUrl: string) {
    return (this.#secrets ?? this.#certificates).resources(typeUrl);
  }

  subscribe(onChange: (typeUrl: string, names?: readonly string[]) => void): () => void {
    this.#subscribers.add(onChange);
    const stopCertificates = this.#certificates.subscribe((typeUrl) => {
      if (this.#secrets === undefined) onChange(typeUrl);
    });
    return () => {
      stopCertificates();
      this.#subscribers.delete(onChange);
    };
  }

  /** What of the client's answers says that it has a secret, or has it no more. */
  get answers(): StreamAnswers {
    return {
      acked: ({ versions }) => {
        if (this.#deps.saysGone) for (const [name, version] of versions) this.#holds(name, version);
      },
      settled: ({ held }) => {
        for (const name of this.#secrets?.names.keys() ?? []) this.#holds(name, held.get(name));
      },
    };
  }

  end(): void {
    if (this.#secrets === undefined) return;
    this.#stopListening();
    // First: what is let go of with the stream its client has not said to have no more.
    this.#holdings?.end();
    this.#secrets.end();
  }

  #begin(nodeId: string | undefined): void {
    const feed = this.#workload.session.workloadSecrets;
    if (feed === undefined)
      throw statusError(status.FAILED_PRECONDITION, 'whoever is in the place of control here (istiod) has no secrets to give');
    const [, namespace = '', name = ''] = NODE_ID.exec(nodeId ?? '') ?? [];
    const { holdings, saysGone } = this.#deps;
    const reporter = this.#workload.identity.svid.id.uri;
    const streamHoldings = holdings.open({ reporter, pod: believedPod(`${namespace}/${name}`, reporter) });
    this.#holdings = streamHoldings;
    const onDrop = (dropped: string) => {
      this.#held.delete(dropped);
      streamHoldings.drop(dropped);
    };
    const secrets = new AskedSecrets({ feed, saysGone, newNames: NEW_NAMES, onDrop });
    this.#secrets = secrets;
    this.#stopListening = secrets.subscribe((typeUrl, names) => {
      for (const subscriber of [...this.#subscribers]) subscriber(typeUrl, names);
    });
  }

  /** Each answer speaks of all that its client holds: what is as it was is no news. */
  #holds(name: string, resourceVersion: string | undefined): void {
    const key = this.#secrets?.names.get(name)?.key;
    if (key === undefined || (this.#held.has(name) && this.#held.get(name) === resourceVersion)) return;
    const versions = this.#secrets?.versionsIn(name, resourceVersion);
    if (versions === undefined) return;
    this.#held.set(name, resourceVersion);
    this.#holdings?.hold(name, { key, versions });
  }
}
