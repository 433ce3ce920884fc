// Secrets as SDS carries them, in Envoy's generic_secret: the values of the current version by their names, which is all that Envoy looks for; the name of that
// version as `/version`; and those of the versions beside it as `VERSION/NAME`. No name of a value has a slash.

import { HandfastError } from '../errors.ts';
import { isSecretKey, isSecretMember, isSecretVersion, parseSecretResourceName, secretResourceName } from '../policy/secret-name.ts';
import { bytesOf, secretBounds, type WorkloadSecret } from '../policy/workload-secret.ts';
import { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { VersionedResource } from './resource-view.ts';
import { keyedDigest } from './secret-version.ts';

const CURRENT = '/version';

export function encodeWorkloadSecret({ key, current, versions }: WorkloadSecret): VersionedResource {
  const secrets: [string, Uint8Array][] = [[CURRENT, Buffer.from(current)]];
  for (const [version, data] of versions)
    for (const [name, value] of data) secrets.push([version === current ? name : `${version}/${name}`, value]);
  return encoded({
    name: secretResourceName(key),
    type: {
      $case: 'genericSecret',
      value: { secret: undefined, secrets: Object.fromEntries(secrets.map(([name, value]) => [name, inline(value)])) },
    },
  });
}

/** One value of the current version, for a client that knows `secret` alone. Undefined where there is none of that name. */
export function encodeSecretMember({ key, current, versions }: WorkloadSecret, member: string): VersionedResource | undefined {
  const value = versions.get(current)?.get(member);
  if (value === undefined) return undefined;
  const name = `${secretResourceName(key)}/${member}`;
  return encoded({ name, type: { $case: 'genericSecret', value: { secret: inline(value), secrets: {} } } });
}

/** Nothing, said of a secret that is gone: state of the world has no word for that. */
export function encodeNoSecret(name: string): VersionedResource {
  return encoded({ name, type: { $case: 'genericSecret', value: { secret: undefined, secrets: {} } } });
}

/** Throws SECRET_INVALID, without a word of what is in it. */
export function decodeWorkloadSecret(bytes: Uint8Array): WorkloadSecret {
  const { name, type } = decode(bytes);
  const key = parseSecretResourceName(name)?.key ?? '';
  const refuse = (what: string) => new HandfastError('SECRET_INVALID', `secret ${JSON.stringify(key)}: ${what}`);
  if (!isSecretKey(key) || type?.$case !== 'genericSecret') throw refuse('it is no generic_secret');
  const versions = new Map<string, Map<string, Buffer>>();
  let current: string | undefined;
  const rest: [string, Buffer][] = [];
  for (const [member, source] of Object.entries(type.value.secrets)) {
    if (source.specifier?.$case !== 'inlineBytes') throw refuse('a value is not inline_bytes');
    if (member === CURRENT) current = Buffer.from(source.specifier.value).toString();
    else rest.push([member, Buffer.from(source.specifier.value)]);
  }
  if (current === undefined || !isSecretVersion(current)) throw refuse('it does not say its current version');
  for (const [member, value] of rest) {
    const [first = '', second, ...more] = member.split('/');
    const [version, own] = second === undefined ? [current, first] : [first, second];
    if (more.length > 0 || !isSecretVersion(version) || !isSecretMember(own)) throw refuse('a value has a name that none can have');
    const data = versions.get(version) ?? new Map<string, Buffer>();
    versions.set(version, data.set(own, value));
  }
  const secret = { key, current, versions };
  if (!versions.has(current) || versions.size > secretBounds.versions || bytesOf(secret) > secretBounds.secretBytes)
    throw refuse('it is out of its bounds');
  return secret;
}

function decode(bytes: Uint8Array): Secret {
  try {
    return Secret.decode(bytes);
  } catch (cause) {
    throw new HandfastError('SECRET_INVALID', 'a secret that is no protobuf', { cause });
  }
}

function encoded(secret: Secret): VersionedResource {
  const value = Secret.encode(secret).finish();
  return { version: keyedDigest(value), value };
}

function inline(value: Uint8Array) {
  return { specifier: { $case: 'inlineBytes' as const, value: Buffer.from(value) } };
}
