// Which workloads some client may be told to call in plaintext: their switches are turned in stages.

import { hostsFor } from '../policy/client-tls.ts';
import { annotatedClientTls, hostnameOf } from '../policy/kinds/service.ts';
import type { ClientTlsSettings, Workload } from '../policy/model.ts';
import type { MeshObjects } from './objects/mesh-objects.ts';

/** Hosts (`a.foo`, `*.foo`, `*`) that a rule with DISABLE names, whomever it holds for, and services that say so themselves. */
export type PlaintextHosts = ReadonlySet<string>;

/** A rule that goes away is obeyed by whoever has not heard of it, and what was dialled by it drains: it counts for as long. */
export class ToldInPlaintext {
  readonly #forMs: number;
  readonly #lastAt = new Map<string, number>();
  #told: PlaintextHosts = new Set();

  constructor(forMs: number) {
    this.#forMs = forMs;
  }

  /** With the hosts of now, those of a while ago. `now`: milliseconds of a clock that never goes back. */
  at(hosts: PlaintextHosts, now: number): PlaintextHosts {
    // What was told until this moment counts from here.
    for (const host of this.#told) this.#lastAt.set(host, now);
    this.#told = hosts;
    for (const [host, lastAt] of this.#lastAt) if (now - lastAt > this.#forMs) this.#lastAt.delete(host);
    return new Set([...this.#lastAt.keys(), ...hosts]);
  }
}

export function plaintextHosts({ destinationRules, scopeConfigs, services }: MeshObjects): PlaintextHosts {
  const hosts = new Set<string>();
  for (const { host, settings } of destinationRules) if (saysDisable(settings)) hosts.add(host);
  for (const { wrapped } of scopeConfigs)
    if (wrapped.kind === 'DestinationRule' && saysDisable(wrapped.policy.settings)) hosts.add(wrapped.policy.host);
  for (const service of services) if (saysDisable(annotatedClientTls(service))) hosts.add(hostnameOf(service));
  return hosts;
}

export function isCalledInPlaintext(workload: Workload | undefined, hosts: PlaintextHosts): boolean {
  if (workload === undefined || hosts.size === 0) return false;
  return [...workload.services.keys()].some((key) => hostsFor(key.slice(key.indexOf('/') + 1)).some((host) => hosts.has(host)));
}

function saysDisable(settings: ClientTlsSettings | undefined): boolean {
  return settings !== undefined && [settings.tls, ...settings.ports.values()].some((tls) => tls?.mode === 'DISABLE');
}
