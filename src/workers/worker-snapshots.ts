// A worker's own snapshots, made of what the main thread says is in force. Main has accepted it: a worker that cannot follow throws, ends, and is replaced, rather than serve by what holds no more.

import { MeshSource, meshTypeUrls } from '../discovery/mesh-source.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { PipelineSettings } from '../proxy/context.ts';
import { isWholeFor } from '../proxy/whole-mesh.ts';
import { Snapshot } from '../snapshot.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { identityFrom } from './identity-texts.ts';
import type { WorkerState } from './messages.ts';

export class WorkerSnapshots {
  readonly identity = new Snapshot<Identity>();
  readonly revocations = new Snapshot<RevocationList>();
  readonly mesh = new Snapshot<MeshSnapshot>();
  readonly #source: MeshSource;

  constructor(pod: Pick<PipelineSettings, 'workloadUid'>) {
    this.#source = new MeshSource(this.mesh, isWholeFor(pod));
  }

  /** Applies what a worker begins with, and waits for what is there of the mesh to be in force. */
  async begin(state: WorkerState, signal: AbortSignal): Promise<void> {
    this.apply(state);
    const arrived = new Set(state.mesh?.map(({ typeUrl }) => typeUrl));
    if (meshTypeUrls.every((typeUrl) => arrived.has(typeUrl))) await this.mesh.first(signal);
  }

  /** Throws what refuses any of it. */
  apply({ identity, revocations, mesh = [] }: WorkerState): void {
    if (identity !== undefined) this.identity.replace(identityFrom(identity));
    // A clone of a Buffer is bare bytes.
    if (revocations !== undefined)
      this.revocations.replace(Object.freeze({ ...revocations, der: Object.freeze(revocations.der.map((der) => Buffer.from(der))) }));
    for (const { typeUrl, change } of mesh) this.#source.apply(typeUrl, change);
  }
}
