// POST /explain {pod: "namespace/name"}: for `handfast explain`.

import { z } from 'zod';
import { HandfastError } from '../../errors.ts';
import type { Selections } from '../../policy/policy-object.ts';
import type { Snapshot } from '../../snapshot.ts';
import type { OperatorRoute } from '../../wire/operator-server.ts';
import type { ObjectSource } from '../objects/mesh-objects.ts';
import { explainWorkload } from './explain-workload.ts';

const schema = z.strictObject({ pod: z.string().min(1) });

export function explainRoute(deps: {
  source: ObjectSource;
  selections?: Snapshot<Selections>;
  trustDomain: string;
  /** Whether a pod's switches are as its objects say, and not on their way there. */
  isInForce?: (pod: string) => boolean;
}): OperatorRoute {
  return {
    method: 'POST',
    path: '/explain',
    handle: (body) => {
      const asked = schema.safeParse(body);
      if (!asked.success) throw new HandfastError('CONFIG_INVALID', z.prettifyError(asked.error));
      const objects = deps.source.objects.current;
      if (objects === undefined) throw new HandfastError('UNAVAILABLE', 'no objects have been read yet');
      const { pod } = asked.data;
      const explanation = explainWorkload(objects, deps.selections?.current ?? new Map(), { trustDomain: deps.trustDomain, pod });
      return { ...explanation, inForce: deps.isInForce?.(pod) ?? true };
    },
  };
}
