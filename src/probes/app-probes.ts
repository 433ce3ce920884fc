// The application's probes, answered in its stead: kubelet speaks no mTLS, and its plaintext would be refused under STRICT.

import { isIPv6 } from 'node:net';
import { messageOf } from '../errors.ts';
import { FairShare } from '../fair-share.ts';
import type { AppProber, AppProbers } from './app-probers.ts';
import type { Asking, ProbeAnswer } from './asking.ts';
import { grpcProbe } from './grpc-probe.ts';
import { httpProbe } from './http-probe.ts';
import { tcpProbe } from './tcp-probe.ts';

export interface AppProbesOptions {
  readonly probers: AppProbers;
  /** The pod's, in canonical text. */
  readonly podIp: string;
  /** What the redirection lets by. */
  readonly source: { readonly v4: string; readonly v6: string };
}

/** Who asks: the address, and what it calls itself. `gone` aborts when nobody waits for the answer any more. */
export interface Asker {
  readonly address: string;
  readonly userAgent: string | undefined;
  readonly gone: AbortSignal;
}

/** Kubelet asks for each probe once at a time, and has few addresses. */
const AT_ONCE = { all: 128, each: 32 };

export class AppProbes {
  readonly #probers: AppProbers;
  readonly #to: Pick<Asking, 'address' | 'source' | 'ports'>;
  readonly #share = new FairShare(AT_ONCE);

  constructor({ probers, podIp, source }: AppProbesOptions) {
    this.#probers = probers;
    const ports = new Set([...probers.values()].map(({ action }) => action.port));
    this.#to = { address: podIp, source: isIPv6(podIp) ? source.v6 : source.v4, ports };
  }

  has(path: string): boolean {
    return this.#probers.has(path);
  }

  /** 404 for a path that is not a probe's, 500 with the reason where the application cannot be asked, otherwise what it said. Never rejects. */
  async answer(path: string, asker: Asker): Promise<ProbeAnswer> {
    const prober = this.#probers.get(path);
    if (prober === undefined) return { status: 404, text: 'there is no such probe' };
    const giveBack = this.#share.take(asker.address);
    if (giveBack === undefined) return { status: 503, text: 'too many probes at once' };
    const deadline = new AbortController();
    const late = new Error(`no answer within ${prober.timeoutMs} ms`);
    const timer = setTimeout(() => deadline.abort(late), prober.timeoutMs);
    const signal = AbortSignal.any([deadline.signal, asker.gone]);
    try {
      return await ask(prober.action, { ...this.#to, userAgent: asker.userAgent, timeoutMs: prober.timeoutMs, signal });
    } catch (error) {
      return { status: 500, text: `port ${prober.action.port}: ${messageOf(deadline.signal.aborted ? late : error)}` };
    } finally {
      clearTimeout(timer);
      giveBack();
    }
  }
}

function ask(action: AppProber['action'], asking: Asking): Promise<ProbeAnswer> {
  switch (action.kind) {
    case 'httpGet':
      return httpProbe(action, asking);
    case 'tcpSocket':
      return tcpProbe(action, asking);
    case 'grpc':
      return grpcProbe(action, asking);
    default:
      return action satisfies never;
  }
}
