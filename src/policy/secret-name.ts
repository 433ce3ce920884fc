// What secrets, their versions and their values may be called: names that stand in a URL, a log line and a resource name as they are.

const KEY = /^[a-z0-9][-a-z0-9]{0,62}\/[a-z0-9](?:[-.a-z0-9]{0,251}[a-z0-9])?$/;
/** Such that an API server understands it, too. */
const VERSION = /^[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?$/;
export const MAX_VERSION_LENGTH = 63;
const MEMBER = /^[A-Za-z0-9][-._A-Za-z0-9]{0,252}$/;
const PREFIX = 'secret:';

export const secretVersionPattern = { regex: VERSION, said: "letters, digits, '-', '_' and '.', at most 63" } as const;
export const secretMemberPattern = {
  regex: MEMBER,
  said: "letters, digits, '-', '_' and '.', a letter or digit first, at most 253",
} as const;

/** Of SDS: `secret:NAMESPACE/NAME`, all of a secret; `secret:NAMESPACE/NAME/MEMBER`, one value of its current version. */
export interface SecretResourceName {
  /** `namespace/name` */
  readonly key: string;
  readonly member: string | undefined;
}

export function isSecretKey(text: string): boolean {
  return KEY.test(text);
}

export function isSecretVersion(text: string): boolean {
  return VERSION.test(text);
}

export function isSecretMember(text: string): boolean {
  return MEMBER.test(text);
}

/** Whether a name of SDS is meant for a secret, rightly or wrongly written. */
export function meansSecret(resourceName: string): boolean {
  return resourceName.startsWith(PREFIX);
}

export function secretResourceName(key: string): string {
  return `${PREFIX}${key}`;
}

/** Undefined for what is no name of a secret. */
export function parseSecretResourceName(text: string): SecretResourceName | undefined {
  if (!meansSecret(text) || text.length > 600) return undefined;
  const [namespace = '', name = '', member, ...more] = text.slice(PREFIX.length).split('/');
  const key = `${namespace}/${name}`;
  if (more.length > 0 || !KEY.test(key) || (member !== undefined && !MEMBER.test(member))) return undefined;
  return { key, member };
}
