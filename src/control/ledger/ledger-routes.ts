// What operators ask of the mesh's ledger: all of it, who breaks under STRICT, and what a proposed policy would have meant.

import { z } from 'zod';
import { HandfastError } from '../../errors.ts';
import type { Selections } from '../../policy/policy-object.ts';
import type { Snapshot } from '../../snapshot.ts';
import type { OperatorRoute } from '../../wire/operator-server.ts';
import type { MeshObjects, ObjectSource } from '../objects/mesh-objects.ts';
import { parseObjects, withProposed } from '../objects/parse-objects.ts';
import { snapshotOf } from '../resolve/snapshot-of.ts';
import { asIfComplete } from './as-if-complete.ts';
import type { MeshLedger } from './mesh-ledger.ts';
import { replay } from './policy-replay.ts';
import { strictCheck } from './strict-check.ts';

export interface LedgerRouteDeps {
  readonly ledger: Pick<MeshLedger, 'instances' | 'isBelieved'>;
  readonly source: ObjectSource;
  readonly trustDomain: string;
  readonly selections: Snapshot<Selections>;
  /** Unix milliseconds. */
  readonly now: () => number;
}

/** Files of policies as text: as much as a directory of them may hold in one file. */
const MAX_REPLAY_BYTES = 4 * 1024 * 1024;

const strictSchema = z.strictObject({
  namespace: z.string().min(1),
  workload: z.string().min(1).optional(),
  minObservedMs: z.int().min(0),
  sinceMs: z.int().min(0).optional(),
});
const replaySchema = z.strictObject({ files: z.array(z.strictObject({ name: z.string(), text: z.string() })).min(1) });

export function ledgerRoutes(deps: LedgerRouteDeps): OperatorRoute[] {
  const { ledger, now } = deps;
  return [
    {
      method: 'GET',
      path: '/ledger',
      handle: () => ({ instances: ledger.instances.map((instance) => ({ ...instance, believed: ledger.isBelieved(instance) ?? null })) }),
    },
    {
      method: 'POST',
      path: '/strict-check',
      handle: (body) => {
        const question = read(strictSchema, body);
        const objects = current(deps.source);
        const mesh = snapshotOf(objects, context(deps));
        const present = new Set(
          objects.pods.filter(({ status }) => !ENDED.has(status.phase ?? '')).map(({ metadata }) => nameOf(metadata)),
        );
        const pods = [...mesh.registry.workloads()].filter((workload) => present.has(nameOf(workload)));
        return strictCheck({ instances: ledger.instances, mesh, pods, now: now() }, question);
      },
    },
    {
      method: 'POST',
      path: '/policy-replay',
      maxBodyBytes: MAX_REPLAY_BYTES,
      handle: (body) => {
        const { files } = read(replaySchema, body);
        const objects = current(deps.source);
        const { objects: complete, completed } = asIfComplete(parseObjects(files, objects.config));
        const proposed = withProposed(objects, complete);
        return { ...replay(ledger.instances, snapshotOf(objects, context(deps)), snapshotOf(proposed, context(deps))), completed };
      },
    },
  ];
}

/** A pod that has ended serves nobody. */
const ENDED: ReadonlySet<string> = new Set(['Succeeded', 'Failed']);

function nameOf({ namespace, name }: { namespace: string; name: string }): string {
  return `${namespace}/${name}`;
}

function context({ trustDomain, selections }: LedgerRouteDeps) {
  return { trustDomain, selections: selections.current ?? new Map() };
}

function current({ objects }: ObjectSource): MeshObjects {
  if (objects.current === undefined) throw new HandfastError('UNAVAILABLE', 'no objects have been read yet');
  return objects.current;
}

function read<T>(schema: z.ZodType<T>, body: unknown): T {
  const parsed = schema.safeParse(body);
  if (parsed.success) return parsed.data;
  throw new HandfastError('CONFIG_INVALID', z.prettifyError(parsed.error));
}
