// Which rule of a client's side holds for a destination: the most specific host of its own rules, else what the service's namespace says, else the root namespace, else auto-mTLS
// (https://istio.io/latest/docs/reference/config/networking/destination-rule/).

import type { ClientTls, ClientTlsRule, ClientTlsSettings, Service, TrafficPolicy } from './model.ts';

/** Rules by host: a look-up costs as many steps as the host name has labels, however many rules there are. */
type RulesByHost = ReadonlyMap<string, ClientTlsSettings>;

const compiled = new WeakMap<readonly ClientTlsRule[], RulesByHost>();

/** Undefined: auto-mTLS decides. `port` is the service's. */
export function clientTlsFor(policy: TrafficPolicy, of: { service: Service; port: number }): ClientTls | undefined {
  const { hostname, clientTls: told } = of.service;
  const own = told?.fromRoot === false ? told : undefined;
  const settings = ruleFor(policy.clientTls, hostname) ?? own ?? ruleFor(policy.rootClientTls, hostname) ?? told;
  if (settings === undefined) return undefined;
  return settings.ports.has(of.port) ? settings.ports.get(of.port) : settings.tls;
}

/** The settings of the most specific host; undefined where no rule is for the name. */
export function ruleFor(rules: readonly ClientTlsRule[], hostname: string): ClientTlsSettings | undefined {
  if (rules.length === 0) return undefined;
  let byHost = compiled.get(rules);
  if (byHost === undefined) {
    byHost = new Map(rules.map((rule) => [rule.host, rule]));
    compiled.set(rules, byHost);
  }
  for (const host of hostsFor(hostname)) {
    const found = byHost.get(host);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The hosts of rules that are for a name, the most specific first: *.foo.bar is for a.foo.bar and a.b.foo.bar, never for foo.bar. */
export function hostsFor(hostname: string): string[] {
  const hosts = [hostname];
  for (let dot = hostname.indexOf('.'); dot !== -1; dot = hostname.indexOf('.', dot + 1)) hosts.push(`*${hostname.slice(dot)}`);
  hosts.push('*');
  return hosts;
}
