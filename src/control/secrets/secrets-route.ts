// What operators ask of secrets: which versions there are, who may have them, who has which, and who still has what was taken back. Never what is in them.

import { HandfastError } from '../../errors.ts';
import { isSecretKey } from '../../policy/secret-name.ts';
import { mayReceive } from '../../policy/secret-policy.ts';
import { parseSpiffeId } from '../../spiffe/spiffe-id.ts';
import { isJsonObject } from '../../spiffe/strict-json.ts';
import type { OperatorRoute } from '../../wire/operator-server.ts';
import type { NodeReceipt } from './node-receipts.ts';
import type { SecretWorld } from './secret-world.ts';

/** Times are Unix milliseconds, 0 where it has not come to that. */
export interface SecretHolder {
  readonly spiffeId: string;
  readonly pod: string;
  readonly node: string;
  readonly version: string;
  readonly delivered: number;
  readonly loaded: number;
  readonly confirmed: number;
  readonly dropped: number;
  /** Since when nobody hears of it. */
  readonly left: number;
  /** It holds a version that is not there any more, or that it may not have any more, as far as is known. */
  readonly holdsRevoked: boolean;
}

export interface SecretStatus {
  /** `namespace/name` */
  readonly secret: string;
  readonly exists: boolean;
  readonly current: string;
  readonly versions: readonly string[];
  readonly recipients: readonly { readonly policy: string; readonly recipients: readonly string[] }[];
  readonly holders: readonly SecretHolder[];
}

export function secretsRoute(of: { world: () => SecretWorld | undefined; receipts: () => readonly NodeReceipt[] }): OperatorRoute {
  return {
    method: 'POST',
    path: '/secrets',
    handle: (body) => {
      const { namespace, name } = isJsonObject(body) ? body : {};
      const world = of.world();
      if (world === undefined)
        throw new HandfastError('CONFIG_INVALID', 'control is started without secrets: give it --secrets-dir, or on Kubernetes --secrets');
      const wanted = (key: string) =>
        (namespace === undefined || key.startsWith(`${String(namespace)}/`)) && (name === undefined || key.endsWith(`/${String(name)}`));
      return { secrets: statusOf(world, of.receipts()).filter(({ secret }) => wanted(secret)) };
    },
  };
}

/** Pure. */
export function statusOf(world: SecretWorld, receipts: readonly NodeReceipt[]): SecretStatus[] {
  const byKey = Map.groupBy(receipts, ({ secret }) => secret);
  const keys = new Set([...world.secrets.keys(), ...world.policiesOf.keys(), ...[...byKey.keys()].filter(isSecretKey)]);
  return [...keys].sort().map((key) => {
    const secret = world.secrets.get(key);
    const mayHave = (version: string, reporter: string) =>
      secret?.versions.has(version) === true && mayReceive(world.policiesOf.get(key) ?? [], { key, id: parseSpiffeId(reporter) });
    return {
      secret: key,
      exists: secret !== undefined,
      current: secret?.current ?? '',
      versions: [...(secret?.versions.keys() ?? [])],
      recipients: (world.policiesOf.get(key) ?? []).map(({ namespace, name, recipients }) => ({
        policy: `${namespace}/${name}`,
        recipients,
      })),
      holders: (byKey.get(key) ?? []).map(({ reporter, pod, node, version, delivered, loaded, confirmed, dropped, left }) => ({
        spiffeId: reporter,
        pod,
        node,
        version,
        delivered,
        loaded,
        confirmed,
        dropped,
        left,
        holdsRevoked: dropped === 0 && !mayHave(version, reporter),
      })),
    };
  });
}
