// The Kubernetes way of naming a workload: its namespace and its service account.

/** A namespace is a DNS label (RFC 1123). */
export const NAMESPACE = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;
/** A service account is a DNS subdomain: labels joined by dots. */
export const SERVICE_ACCOUNT = /^(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

export interface ServiceAccount {
  readonly namespace: string;
  readonly serviceAccount: string;
}

/** Of `system:serviceaccount:<namespace>:<name>`; undefined for anything else, a user or a node among them. */
export function parseServiceAccount(subject: unknown): ServiceAccount | undefined {
  if (typeof subject !== 'string') return undefined;
  const [system, kind, namespace, serviceAccount, ...rest] = subject.split(':');
  if (system !== 'system' || kind !== 'serviceaccount' || rest.length > 0 || namespace === undefined || serviceAccount === undefined)
    return undefined;
  return NAMESPACE.test(namespace) && SERVICE_ACCOUNT.test(serviceAccount) ? { namespace, serviceAccount } : undefined;
}
