// The mesh as sidecars ask for it, by names: streams of Delta ADS for which one index and one budget of names serve all.

import type { Rate } from '../rate-limit.ts';
import type { DeltaDiscoveryRequest } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { AddressView } from './address-view.ts';
import { type ConfirmedPolicies, TakenByStream } from './confirmed-policies.ts';
import { type DeltaStream, serveDeltaStream } from './delta-server.ts';
import type { MeshIndex } from './mesh-index.ts';
import { type NameBounds, NameBudget } from './name-budget.ts';
import { requestLimit } from './request-limit.ts';
import type { ResponseRules } from './response-writer.ts';
import type { DiscoveryLog } from './stream.ts';

/** A sidecar asks some 25 times a second at most, and answers what it is told; a mesh may change often. */
const REQUESTS: Rate = { burst: 400, perSecond: 200 };

export class MeshStreams {
  readonly #index: MeshIndex;
  readonly #confirmed: ConfirmedPolicies;
  readonly #budget: NameBudget;
  readonly #log: DiscoveryLog;

  /** `confirmed` is told what the sidecars take. */
  constructor(deps: { index: MeshIndex; confirmed: ConfirmedPolicies; log: DiscoveryLog; names?: NameBounds }) {
    this.#index = deps.index;
    this.#confirmed = deps.confirmed;
    this.#budget = new NameBudget(deps.names);
    this.#log = deps.log;
  }

  /** Call the answer when the stream has ended. */
  serve(call: DeltaStream, { spiffeId, rules }: { spiffeId: string; rules: ResponseRules }): () => void {
    const taken = new TakenByStream(spiffeId);
    const limit = requestLimit(REQUESTS);
    const admit = (request: DeltaDiscoveryRequest) => {
      limit();
      taken.hear(request);
    };
    const view = new AddressView(this.#index, this.#budget.open(spiffeId));
    serveDeltaStream(call, { ...rules, view, peer: spiffeId, log: this.#log, admit, answers: taken });
    return this.#confirmed.follow(taken);
  }
}
