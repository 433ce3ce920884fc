// What istiod says, as our sidecars know it: under their names, without what is in networks that they do not reach, and one object that no proxy of ours can act on closes what it is about instead of holding up the rest.

import { decodeAuthorization } from '../discovery/authorization-codec.ts';
import type { ResourceChange } from '../discovery/resource-cache.ts';
import { decodeAddress } from '../discovery/workload-codec.ts';
import { messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { ipFromBytes } from '../policy/ip.ts';
import { podUid } from '../policy/model.ts';
import * as security from '../wire/gen/istio/security/authorization.ts';
import * as registry from '../wire/gen/istio/workload/workload.ts';

/** Of our own pods; no other cluster's may have it, whatever it is called. */
const OWN = podUid('');

export class IstiodResources {
  readonly #own: string;
  readonly #log: Log;
  /** That of our own cluster's pods. */
  #network = '';

  /** `clusterId`: what istiod calls the cluster that our pods are in. */
  constructor({ clusterId, log }: { clusterId: string; log: Log }) {
    this.#own = `${clusterId}//Pod/`;
    this.#log = log;
  }

  /** Throws for what is no Address at all. */
  addresses({ upserts, removed }: ResourceChange): ResourceChange {
    const read = [...upserts].map(([name, bytes]) => [name, registry.Address.decode(bytes).type] as const);
    for (const [, type] of read) if (type?.$case === 'workload' && type.value.uid.startsWith(this.#own)) this.#network = type.value.network;
    const renamed = new Map<string, Uint8Array>();
    const gone = removed.map((name) => this.#nameOf(name));
    for (const [name, type] of read) {
      const ours = this.#nameOf(name);
      if (type?.$case === 'workload' && this.#isElsewhere(type.value)) gone.push(ours);
      else if (type !== undefined) renamed.set(ours, this.#usable(ours, type));
    }
    return { upserts: renamed, removed: gone };
  }

  /** Throws for what is no Authorization at all. */
  authorizations({ upserts, removed }: ResourceChange): ResourceChange {
    return { upserts: new Map([...upserts].map(([name, bytes]) => [name, this.#enforceable(name, bytes)])), removed };
  }

  #nameOf(name: string): string {
    if (name.startsWith(this.#own)) return podUid(name.slice(this.#own.length));
    return name.startsWith(OWN) ? `other/${name}` : name;
  }

  /** Their addresses may be those of pods here. */
  #isElsewhere({ uid, network }: registry.Workload): boolean {
    return network !== this.#network && !uid.startsWith(this.#own);
  }

  #usable(name: string, type: NonNullable<registry.Address['type']>): Uint8Array {
    const wire =
      type.$case === 'workload'
        ? { $case: type.$case, value: { ...type.value, uid: this.#nameOf(type.value.uid) } }
        : {
            $case: type.$case,
            value: { ...type.value, addresses: type.value.addresses.filter(({ network }) => network === this.#network) },
          };
    const bytes = registry.Address.encode({ type: wire }).finish();
    try {
      decodeAddress(bytes);
      return bytes;
    } catch (error) {
      this.#log.error({ object: name, reason: messageOf(error) }, 'istiod says what cannot be used: nobody is called at its addresses');
      return registry.Address.encode({ type: wire.$case === 'workload' ? nobodyAt(wire.value) : nothingAt(wire.value) }).finish();
    }
  }

  #enforceable(name: string, bytes: Uint8Array): Uint8Array {
    try {
      decodeAuthorization(bytes, name);
      return bytes;
    } catch (error) {
      this.#log.error(
        { object: name, reason: messageOf(error) },
        'istiod says what cannot be enforced: whom it is about is called by nobody',
      );
      return deniedToAll(name, security.Authorization.decode(bytes).scope);
    }
  }
}

/** In the mesh, and whoever answers is not it. */
function nobodyAt(workload: registry.Workload): NonNullable<registry.Address['type']> {
  const { LEGACY_ISTIO_MTLS: tunnelProtocol } = registry.TunnelProtocol;
  return {
    $case: 'workload',
    value: { ...workload, serviceAccount: '', tunnelProtocol, addresses: workload.addresses.filter(isIp), services: {} },
  };
}

/** Known, and without a port that leads anywhere. */
function nothingAt(service: registry.Service): NonNullable<registry.Address['type']> {
  const addresses = service.addresses.filter(({ address }) => isIp(address));
  return { $case: 'service', value: { ...service, addresses, ports: [], subjectAltNames: [], extensions: [] } };
}

/** A scope that we do not know is read as the whole namespace. */
function deniedToAll(key: string, scope: security.Scope): Uint8Array {
  const [namespace = '', name = ''] = key.split('/');
  const { GLOBAL, NAMESPACE, WORKLOAD_SELECTOR } = security.Scope;
  const known = scope === GLOBAL || scope === WORKLOAD_SELECTOR ? scope : NAMESPACE;
  const always = [{ clauses: [] }];
  return security.Authorization.encode({
    namespace,
    name,
    scope: known,
    action: security.Action.DENY,
    rules: always,
    dryRun: false,
  }).finish();
}

function isIp(bytes: Uint8Array): boolean {
  try {
    return ipFromBytes(bytes) !== '';
  } catch {
    return false;
  }
}
