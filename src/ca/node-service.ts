// Nodes: a join token lets one in, once, or its service account's token; from then on its certificate proves it.

import { type Server, type sendUnaryData, status } from '@grpc/grpc-js';
import { HandfastError } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { KeyedLimits } from '../rate-limit.ts';
import { readCsr } from '../spiffe/csr.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { agentId, controlId } from '../spiffe/system-ids.ts';
import { callerKey, callerOf } from '../wire/caller.ts';
import { type NodeCertificate, type NodeServiceServer, NodeServiceService } from '../wire/gen/handfast/ca/v1/ca.ts';
import { statusError } from '../wire/grpc.ts';
import type { Authority } from './authority.ts';
import { caCaller } from './callers.ts';
import type { JoinTokens } from './join-tokens.ts';
import { isAccountToken, type NodeAccounts } from './node-accounts.ts';
import { RefusalLog } from './refusal-log.ts';
import { statusOf } from './server.ts';

/** Guesses at join tokens, by address: 256 random bits need no more protection, the log does. */
const JOINS = { burst: 20, perSecond: 1 };

interface NodeServiceDeps {
  readonly authority: Authority;
  readonly joinTokens: JoinTokens;
  /** Where nodes are a cluster's. */
  readonly nodeAccounts?: NodeAccounts | undefined;
  readonly nodeTtlMs: number;
  readonly log: Log;
  readonly now: () => number;
  readonly refusals?: RefusalLog;
}

export function addNodeService(server: Server, deps: NodeServiceDeps): void {
  const { joinTokens, nodeAccounts, log, authority, now, refusals = new RefusalLog(log) } = deps;
  const { trustDomain } = authority;
  const joins = new KeyedLimits(JOINS);
  const reply = (issuing: Promise<NodeCertificate>, to: { call: { getPeer(): string }; callback: sendUnaryData<NodeCertificate> }) => {
    const refused = refusals.of(to.call, 'node certificate refused');
    issuing.then(
      (certificate) => to.callback(null, certificate),
      (error) => {
        refused(error);
        to.callback(statusOf(error));
      },
    );
  };
  const service: NodeServiceServer = {
    join: (call, callback) => {
      const join = async () => {
        caCaller(call, { trustDomain, now: now() });
        const caller = callerOf(call);
        const waitMs = joins.take(caller === undefined ? '' : callerKey(caller));
        if (waitMs > 0) throw new HandfastError('RATE_LIMITED', `too many attempts to join; the next one in ${Math.ceil(waitMs / 1000)} s`);
        // The CSR first: a mistake in it must not cost the token.
        const { publicKey } = readCsr(call.request.csr);
        const { joinToken } = call.request;
        if (nodeAccounts !== undefined && isAccountToken(joinToken))
          return issue(await nodeAccounts.prove(joinToken), { ...deps, publicKey });
        return joinTokens.redeem(joinToken, (id) => issue(id, { ...deps, publicKey }));
      };
      reply(join(), { call, callback });
    },
    renew: (call, callback) => {
      const renew = async () => {
        const caller = caCaller(call, { trustDomain, now: now() });
        if (caller.kind === 'anonymous') throw statusError(status.UNAUTHENTICATED, "renewing needs the node's certificate; join again");
        const id = caller.kind === 'control' ? controlId(trustDomain) : agentId(trustDomain, caller.name);
        return issue(id, { ...deps, publicKey: readCsr(call.request.csr).publicKey });
      };
      reply(renew(), { call, callback });
    },
  };
  server.addService(NodeServiceService, service);
}

async function issue(
  id: SpiffeId,
  { authority, nodeTtlMs, log, publicKey }: NodeServiceDeps & { publicKey: ReturnType<typeof readCsr>['publicKey'] },
): Promise<NodeCertificate> {
  const node = id.uri === controlId(id.trustDomain).uri ? 'control' : (id.path.split('/').at(-1) ?? '');
  const { chain, serial, notAfter } = await authority.issue({
    id,
    publicKey,
    ttlMs: nodeTtlMs,
    maxTtlMs: nodeTtlMs,
    node,
    purpose: 'node',
  });
  log.info({ spiffeId: id.uri, serial, notAfter: new Date(notAfter).toISOString() }, 'node certificate issued');
  const [leaf, intermediates, bundle] = chain;
  return { chain: leaf + intermediates, bundle };
}
