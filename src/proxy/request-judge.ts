// The verdicts on one connection's requests: who the caller is beyond the connection (its token), and whether it may ask for this. By the policy that is in force when it asks, and for as long as it is answered.

import { HandfastError } from '../errors.ts';
import type { RequestVerdict } from '../http/http-connection.ts';
import type { IncomingRequest } from '../http/incoming-request.ts';
import { valuesOf } from '../http/message-headers.ts';
import { type Arrival, decideInbound, decideRequest } from '../policy/decide.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import { switchFor } from '../policy/model.ts';
import { authenticateRequest } from '../policy/request-authentication.ts';
import type { Judgement, Verdict } from '../policy/verdict.ts';
import { judging, type PipelineContext, selfIn } from './context.ts';

export class RequestJudge {
  readonly #arrival: Arrival;
  readonly #context: PipelineContext;
  /** The request that is being answered, and when it came: a token that was good then is good until its answer is whole. */
  #open: { readonly request: IncomingRequest; readonly at: number } | undefined;
  #shadow: Verdict | undefined;

  constructor(arrival: Arrival, context: PipelineContext) {
    this.#arrival = arrival;
    this.#context = context;
  }

  /** By what is in force now. */
  judge(request: IncomingRequest): RequestVerdict {
    const open = { request, at: this.#context.now() };
    this.#open = open;
    this.#shadow = undefined;
    const { mesh } = this.#context;
    try {
      if (mesh.current === undefined) throw new HandfastError('NO_POLICY', 'no policy has arrived from the agent yet');
      return this.#judge(open, mesh.current);
    } catch (error) {
      if (!(error instanceof HandfastError)) throw error;
      return { allowed: false, status: 503, code: error.code, reason: error.message, fields: [] };
    }
  }

  /** The connection's transport, and its open request. */
  rejudge(mesh: MeshSnapshot): Judgement {
    return judging(() => {
      const { policy } = selfIn(mesh, this.#context);
      const byTransport = decideInbound(switchFor(policy, this.#arrival.destination.port), this.#arrival.transport);
      if (!byTransport.allowed || this.#open === undefined) return byTransport;
      const verdict = this.#judge(this.#open, mesh);
      return verdict.allowed ? { allowed: true } : { allowed: false, code: verdict.code, reason: verdict.reason };
    });
  }

  /** Its answer is over. The refusal that what is in dry-run would have given. */
  ended(): Verdict | undefined {
    this.#open = undefined;
    const shadow = this.#shadow;
    this.#shadow = undefined;
    return shadow;
  }

  #judge({ request, at }: { request: IncomingRequest; at: number }, mesh: MeshSnapshot): RequestVerdict {
    const { self, policy } = selfIn(mesh, this.#context);
    const values = (name: string) => valuesOf(request.fields, name);
    const token = authenticateRequest(policy.http?.jwtRules ?? [], { values, query: request.path.query }, at);
    if ('refused' in token) return { allowed: false, status: 401, code: 'JWT_INVALID', ...token.refused };
    const header = (name: string) => (name === 'host' ? [request.host] : request.came(name));
    const { method, host, path } = request;
    const facts = { method, paths: path.readings, host, header, alike: request.alike, auth: token.auth };
    const authorizations = mesh.authorizations.of(self);
    const verdict = decideRequest(this.#arrival, facts, { switches: policy, authorizations });
    // Where nothing is in dry-run both are one.
    const shadow =
      policy.shadow === undefined && !authorizations.policies.some(({ dryRun }) => dryRun)
        ? verdict
        : decideRequest(this.#arrival, facts, { switches: policy.shadow ?? policy, authorizations, dryRun: true });
    this.#shadow = shadow.allowed ? undefined : shadow;
    if (!verdict.allowed) return { allowed: false, status: 403, code: verdict.code, reason: verdict.reason, fields: [] };
    const { remove, add, query } = token;
    return { allowed: true, remove, add, ...(query === undefined ? {} : { query }) };
  }
}
