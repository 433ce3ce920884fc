// The mesh as a sidecar without an agent asks for it: by names, as it would ask an agent.

import type { ConfirmedPolicies } from '../discovery/confirmed-policies.ts';
import type { DeltaStream } from '../discovery/delta-server.ts';
import { MeshIndex } from '../discovery/mesh-index.ts';
import { MeshStreams } from '../discovery/mesh-streams.ts';
import { NAMES_OF_A_MESH } from '../discovery/name-budget.ts';
import type { ResourceCache } from '../discovery/resource-cache.ts';
import type { Log } from '../observe/log.ts';
import { whenOver } from '../wire/grpc.ts';

/** A sidecar answers at once. */
const ANSWER_TIMEOUT_MS = 60_000;

export class MeshForSidecars {
  readonly #deps: { readonly cache: ResourceCache; readonly confirmed: ConfirmedPolicies; readonly log: Log };
  /** Made for the first one that comes: where all pods have agents it costs nothing. */
  #streams: MeshStreams | undefined;

  /** `confirmed` is told what the sidecars take. */
  constructor(deps: { cache: ResourceCache; confirmed: ConfirmedPolicies; log: Log }) {
    this.#deps = deps;
  }

  serve(call: DeltaStream, spiffeId: string): void {
    const { cache, confirmed, log } = this.#deps;
    this.#streams ??= new MeshStreams({ index: new MeshIndex(cache), confirmed, log, names: NAMES_OF_A_MESH });
    whenOver(call, this.#streams.serve(call, { spiffeId, rules: { answerTimeoutMs: ANSWER_TIMEOUT_MS } }));
  }
}
