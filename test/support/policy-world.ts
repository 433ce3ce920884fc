// A mesh written down as YAML, and the questions one can ask of it: the whole way from objects to decisions, without a socket.

import { parseObjects } from '../../src/control/objects/parse-objects.ts';
import { snapshotOf } from '../../src/control/resolve/snapshot-of.ts';
import { decideArrival, decideOutbound, decideRequest, decideShadow, readsRequests, type Transport } from '../../src/policy/decide.ts';
import type { HttpRequestFacts } from '../../src/policy/http-request.ts';
import type { JwtRule } from '../../src/policy/jwt-rule.ts';
import type { MeshSnapshot } from '../../src/policy/mesh-snapshot.ts';
import { switchFor, type TrafficPolicy, type Workload } from '../../src/policy/model.ts';
import type { Selections } from '../../src/policy/policy-object.ts';
import { readPath } from '../../src/policy/request-path.ts';
import { allowedIdentities } from '../../src/policy/secure-naming.ts';
import type { Verdict } from '../../src/policy/verdict.ts';
import { parseSpiffeId } from '../../src/spiffe/spiffe-id.ts';

/** Who calls: a pod (`namespace/name`) with its address and, over mTLS, its identity; or an address with whatever identity. */
export type Caller = string | { readonly ip: string; readonly principal?: string };

export interface Call {
  readonly from: Caller;
  /** `namespace/name` of the pod that is called. */
  readonly to: string;
  /** The pod's port; 80 where nobody cares. */
  readonly port?: number;
  /** mtls unless told otherwise. */
  readonly transport?: Transport;
}

/** A request, `GET /` of a host nobody cares for unless told otherwise. `claims`: of its token. */
export interface Asked {
  readonly method?: string;
  readonly target?: string;
  readonly host?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  readonly claims?: Readonly<Record<string, unknown>>;
}

function factsOf({ method = 'GET', target = '/', host = 'any', headers = {}, claims }: Asked): HttpRequestFacts {
  const path = readPath(target, { method });
  const header = (name: string) => (Object.hasOwn(headers, name) ? [headers[name] ?? []].flat() : []);
  if ('refusal' in path) throw new Error(path.refusal);
  const { iss, sub, aud, azp } = claims ?? {};
  const auth = {
    principal: typeof iss === 'string' && typeof sub === 'string' ? `${iss}/${sub}` : '',
    audiences: [aud].flat().filter((one) => typeof one === 'string'),
    presenter: typeof azp === 'string' ? azp : '',
    claims: claims ?? {},
  };
  return {
    method,
    host,
    paths: path.readings,
    header,
    alike: header,
    auth: claims === undefined ? undefined : auth,
  };
}

export class PolicyWorld {
  readonly #mesh: MeshSnapshot;

  /** Throws OBJECT_INVALID for what control would refuse. */
  constructor(yaml: string, options: { trustDomain?: string; selections?: Selections } = {}) {
    const objects = parseObjects([{ name: 'world.yaml', text: yaml.endsWith('\n') ? yaml : `${yaml}\n` }]);
    const { trustDomain = 'cluster.local', selections = new Map() } = options;
    this.#mesh = snapshotOf(objects, { trustDomain, selections });
  }

  /** `allowed`, or the code of the refusal. */
  call(call: Call): string {
    const { self, policy, arrival } = this.#arrival(call);
    return wordFor(decideArrival(arrival, { switches: policy, authorizations: this.#mesh.authorizations.of(self) }));
  }

  /** What comes of a request on such a call: `allowed`, or the code of the refusal. Its token is taken as verified. */
  ask(call: Call, request: Asked): string {
    const { self, policy, arrival } = this.#arrival(call);
    const authorizations = this.#mesh.authorizations.of(self);
    if (!readsRequests(policy, arrival)) return wordFor(decideArrival(arrival, { switches: policy, authorizations }));
    return wordFor(decideRequest(arrival, factsOf(request), { switches: policy, authorizations }));
  }

  /** The ports of a pod whose requests are read. */
  httpPorts(pod: string): readonly number[] {
    return this.#policy(this.#workload(pod)).http?.ports ?? [];
  }

  /** Whose tokens count there. */
  jwtRules(pod: string): readonly JwtRule[] {
    return this.#policy(this.#workload(pod)).http?.jwtRules ?? [];
  }

  /** The same, as if what is in dry-run were in force. */
  shadowOf(call: Call): string {
    const { self, policy, arrival } = this.#arrival(call);
    return wordFor(decideShadow(arrival, { policy, authorizations: this.#mesh.authorizations.of(self) }));
  }

  /** The mTLS mode of a pod's port, and the object that set it. */
  mode(pod: string, port = 80): { mode: string; source: string } {
    const { mode, source } = switchFor(this.#policy(this.#workload(pod)), port);
    return { mode, source };
  }

  /** How a pod calls a service (`namespace/hostname`) on its port: the transport, who decided, and whom the server must prove to be. */
  dial(from: string, service: string, port = 80): { transport: string; mode: string; allowed: readonly string[]; sni: string | undefined } {
    const client = this.#policy(this.#workload(from));
    const found = this.#mesh.registry.service(service);
    if (found === undefined) throw new Error(`there is no service ${service}`);
    for (const workload of this.#mesh.registry.workloads()) {
      const own = workload.services.get(service)?.find(({ servicePort }) => servicePort === port);
      if (own === undefined) continue;
      const departure = { workload, port: own.targetPort, service: found, servicePort: port, client };
      const { transport, mode, tls } = decideOutbound({ ...departure, server: this.#mesh.policies.get(workload.uid) });
      return { transport, mode, allowed: allowedIdentities(departure, { tls, client }), sni: tls?.sni };
    }
    throw new Error(`service ${service} has no endpoint for port ${port}`);
  }

  #arrival({ from, to, port = 80, transport = 'mtls' }: Call) {
    const self = this.#workload(to);
    const caller = typeof from === 'string' ? this.#callerOf(from) : from;
    const peer = transport === 'mtls' && caller.principal !== undefined ? parseSpiffeId(`spiffe://${caller.principal}`) : undefined;
    const destination = { address: self.addresses[0] ?? '', port };
    return { self, policy: this.#policy(self), arrival: { transport, peer, sourceIp: caller.ip, destination } };
  }

  #callerOf(pod: string): { ip: string; principal?: string } {
    const { addresses, identity } = this.#workload(pod);
    return { ip: addresses[0] ?? '', ...(identity === undefined ? {} : { principal: identity.uri.slice('spiffe://'.length) }) };
  }

  #workload(pod: string): Workload {
    const [namespace = '', name = ''] = pod.split('/');
    const workload = this.#mesh.registry.workload(namespace, name);
    if (workload === undefined) throw new Error(`there is no pod ${pod}`);
    return workload;
  }

  #policy({ uid }: Workload): TrafficPolicy {
    const policy = this.#mesh.policies.get(uid);
    if (policy === undefined) throw new Error(`no policy for ${uid}`);
    return policy;
  }
}

function wordFor(verdict: Verdict): string {
  return verdict.allowed ? 'allowed' : verdict.code;
}
