// The mesh as a sidecar without an agent asks for it: by names, as it would ask an agent.

import { AddressView } from '../discovery/address-view.ts';
import { type DeltaStream, serveDeltaStream } from '../discovery/delta-server.ts';
import { type HeldPolicies, TakenByStream } from '../discovery/held-policies.ts';
import { MeshIndex } from '../discovery/mesh-index.ts';
import { NameBudget } from '../discovery/name-budget.ts';
import { requestLimit } from '../discovery/request-limit.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import type { DeltaDiscoveryRequest } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { whenOver } from '../wire/grpc.ts';

/** As an agent's: a sidecar asks some 25 times a second at most. */
const REQUESTS = { burst: 400, perSecond: 200 };
/** A sidecar answers at once. */
const ANSWER_TIMEOUT_MS = 60_000;

export class MeshForSidecars {
  readonly #cache: ResourceCache;
  readonly #log: Log;
  readonly #budget = new NameBudget();
  /** Made for the first one that comes: where all pods have agents it costs nothing. */
  #index: MeshIndex | undefined;

  constructor({ cache, log }: { cache: ResourceCache; log: Log }) {
    this.#cache = cache;
    this.#log = log;
  }

  /** `confirmed` is told what the sidecar takes. */
  serve(call: DeltaStream, { spiffeId, confirmed }: { spiffeId: string; confirmed: HeldPolicies }): void {
    this.#index ??= new MeshIndex(this.#cache);
    const taken = new TakenByStream(spiffeId);
    const limit = requestLimit(REQUESTS);
    const admit = (request: DeltaDiscoveryRequest) => {
      limit();
      taken.hear(request);
    };
    whenOver(call, confirmed.follow(taken));
    serveDeltaStream(call, {
      view: new AddressView(this.#index, this.#budget),
      peer: spiffeId,
      log: this.#log,
      admit,
      answers: taken,
      answerTimeoutMs: ANSWER_TIMEOUT_MS,
    });
  }
}
