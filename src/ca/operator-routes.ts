// What operators ask of the CA: revocations, root rotation, join tokens, and what it has issued.

import { HandfastError, messageOf } from '../errors.ts';
import { agentId, controlId } from '../spiffe/system-ids.ts';
import type { OperatorRoute } from '../wire/operator-server.ts';
import type { Authority } from './authority.ts';
import { type RevocationReason, revocationReasons } from './crl-writer.ts';
import type { JoinTokens } from './join-tokens.ts';
import { keyTarget, type RevocationTarget, serialTarget, spiffeIdTarget } from './revocation-target.ts';
import { type Fields, onlyFields, textField, wholeField } from './state-fields.ts';
import type { TrustFollowers } from './trust-server.ts';

interface CaOperatorDeps {
  readonly authority: Authority;
  readonly joinTokens: JoinTokens;
  readonly followers: TrustFollowers;
  /** Ends the connections of nodes that were revoked. */
  readonly cutRevoked: () => void;
}

export function caOperatorRoutes(deps: CaOperatorDeps): OperatorRoute[] {
  const { authority, joinTokens, followers } = deps;
  const behind = () => followers.behind(authority.liveNodes);
  const status = () => ({
    trustDomain: authority.trustDomain,
    rotation: { ...authority.rotation, behind: behind() },
    nodes: { connected: followers.connected, live: [...authority.liveNodes] },
    liveCertificates: authority.ledger.size,
    revocations: {
      serials: [...authority.revocations.certificates.values()],
      blockedIds: [...authority.revocations.ids.values()],
      keys: [...authority.revocations.keys.values()],
    },
  });
  const stage = (path: string, act: (fields: Fields) => Promise<void>): OperatorRoute => ({
    method: 'POST',
    path,
    handle: async (body) => {
      await act(readBody(body, ['force']));
      return status();
    },
  });
  return [
    { method: 'GET', path: '/status', handle: status },
    { method: 'GET', path: '/bundle', handle: () => ({ pem: authority.bundlePem }) },
    {
      method: 'POST',
      path: '/revocations',
      handle: async (body) => {
        const fields = readBody(body, ['serial', 'key', 'spiffeId', 'reason', 'text', 'expiresAt', 'dryRun']);
        const target = targetOf(fields, authority.trustDomain);
        const force = fields.expiresAt === undefined ? {} : { forceExpiresAt: reading(() => wholeField(fields, 'expiresAt')) };
        if (fields.dryRun === true) return authority.preview({ target, ...force });
        const text = fields.text === undefined ? '' : reading(() => textField(fields, 'text'));
        const effect = await authority.revoke({ target, reason: reasonOf(fields), text, ...force });
        deps.cutRevoked();
        return effect;
      },
    },
    {
      method: 'POST',
      path: '/revocations/lift',
      handle: async (body) => ({
        lifted: await authority.lift(targetOf(readBody(body, ['key', 'spiffeId']), authority.trustDomain)),
      }),
    },
    stage('/root/prepare', () => authority.prepareRoot()),
    stage('/root/activate', (fields) => authority.activateRoot({ behind: behind(), force: fields.force === true })),
    stage('/root/retire', (fields) => authority.retireRoot({ force: fields.force === true })),
    stage('/root/abort', () => authority.abortRoot()),
    {
      method: 'POST',
      path: '/join-tokens',
      handle: (body) => {
        const fields = readBody(body, ['node', 'role', 'ttlMs']);
        const { trustDomain } = authority;
        const id =
          fields.role === 'control'
            ? controlId(trustDomain)
            : agentId(
                trustDomain,
                reading(() => textField(fields, 'node')),
              );
        return joinTokens.create({ id, ttlMs: reading(() => wholeField(fields, 'ttlMs')) });
      },
    },
    {
      method: 'POST',
      path: '/jwt-keys/withdraw',
      handle: (body) => authority.withdrawJwtKey(reading(() => textField(readBody(body, ['kid']), 'kid'))),
    },
  ];
}

function targetOf(fields: Fields, trustDomain: string): RevocationTarget {
  const given = ['serial', 'key', 'spiffeId'].filter((name) => fields[name] !== undefined);
  if (given.length !== 1) throw new HandfastError('CONFIG_INVALID', 'name one of serial, key and SPIFFE ID');
  if (fields.serial !== undefined) return serialTarget(reading(() => textField(fields, 'serial')));
  if (fields.key !== undefined) return keyTarget(reading(() => textField(fields, 'key')));
  return spiffeIdTarget(
    reading(() => textField(fields, 'spiffeId')),
    trustDomain,
  );
}

function reasonOf({ reason = 'unspecified' }: Fields): RevocationReason {
  const known = Object.keys(revocationReasons);
  const found = known.find((name): name is RevocationReason => name === reason);
  if (found === undefined)
    throw new HandfastError('CONFIG_INVALID', `reason ${JSON.stringify(reason)} is not accepted: ${known.join(', ')}`);
  return found;
}

function readBody(body: unknown, names: readonly string[]): Fields {
  if (body === undefined) return {};
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw new HandfastError('CONFIG_INVALID', 'the request is not an object');
  const fields = { ...body };
  reading(() => onlyFields(fields, names));
  return fields;
}

function reading<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    throw new HandfastError('CONFIG_INVALID', messageOf(cause), { cause });
  }
}
