// Secrets as somebody offers them who knows for whom: by name, for as long as a name is held.

import type { WorkloadSecret } from '../policy/workload-secret.ts';
import type { VersionedResource } from './resource-view.ts';

/** Metadata of a stream to control: on a socket that only root may open the agent's word for whom it asks is enough; elsewhere the workload's own certificate says it. */
export const WORKLOAD_METADATA = 'handfast-workload';

/** A secret and the same as it goes over the wire. Wiped once it is replaced: whoever hands it on later takes a copy now. */
export interface HeldSecret {
  readonly secret: WorkloadSecret;
  readonly resource: VersionedResource;
}

/** `none`: there is none for whoever asks, whether it exists or not. Undefined: not known yet. */
export type SecretAnswer = HeldSecret | 'none' | undefined;

/** Keys are `namespace/name`. */
export interface SecretFeed {
  /** Until the returned function is called. */
  hold(key: string): () => void;
  answer(key: string): SecretAnswer;
  /** Calls back with the keys whose answers have changed. Returns the way to stop. */
  subscribe(onChange: (keys: readonly string[]) => void): () => void;
}
