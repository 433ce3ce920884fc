// The sidecar's tunnels, both sides: whom they are made with, and what a new certificate, bundle or revocation list does to those that are open.

import type { Socket } from 'node:net';
import { HandfastError } from '../errors.ts';
import { ReceiveBudget } from '../hbone/receive-budget.ts';
import { type Dialled, TUNNEL_PORT, TunnelPool, type TunnelTarget } from '../hbone/tunnel-pool.ts';
import { TunnelServer } from '../hbone/tunnel-server.ts';
import { dial } from '../net/dial.ts';
import { decideRevocation, decideTrust } from '../policy/decide.ts';
import type { Verdict } from '../policy/verdict.ts';
import { noRevocations, type RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { sameBundles, type TrustBundles } from '../spiffe/trust-bundle.ts';
import type { VerifiedPeer } from '../spiffe/verify-peer.ts';
import { chooseHttp2, HTTP2_ALPN } from '../tls/alpn.ts';
import { originate } from '../tls/originate.ts';
import { Terminator } from '../tls/terminate.ts';
import { dialError, enforce, type PipelineContext, type PipelineSettings, usableIdentity } from './context.ts';
import { inboundTunnel } from './inbound-tunnel.ts';

export interface TunnelsOptions {
  readonly settings: Pick<PipelineSettings, 'dialTimeoutMs' | 'handshakeTimeoutMs'>;
  /** The port at which a peer takes tunnels. */
  readonly portOf: (address: string) => number;
  readonly revocations: () => RevocationList | undefined;
  readonly now: () => number;
}

export class Tunnels {
  readonly pool: TunnelPool;
  readonly #options: TunnelsOptions;
  readonly #budget = new ReceiveBudget();
  readonly #terminator: Terminator;
  #server: TunnelServer | undefined;
  #identity: Identity | undefined;

  constructor(options: TunnelsOptions) {
    this.#options = options;
    const { dialTimeoutMs, handshakeTimeoutMs } = options.settings;
    this.pool = new TunnelPool({
      budget: this.#budget,
      patienceMs: dialTimeoutMs + handshakeTimeoutMs,
      dial: (target) => this.#dial(target),
    });
    this.#terminator = new Terminator({
      handshakeTimeoutMs: options.settings.handshakeTimeoutMs,
      chooseAlpn: chooseHttp2,
      revocations: () => options.revocations() ?? noRevocations,
      now: options.now,
    });
  }

  /** From now on what connects to the tunnels' port is served. */
  serve(context: PipelineContext): (socket: Socket) => void {
    const server = new TunnelServer({
      terminator: this.#terminator,
      budget: this.#budget,
      admit: (peer, verifiedBy) => this.#admit(peer, verifiedBy),
      onConnect: (request) => void inboundTunnel(request, context),
    });
    this.#server = server;
    return (socket) => void accept(socket, { server, context });
  }

  /** New sessions have the new certificate; those that are open take no new streams as soon as others can. */
  replace(next: Identity, previous: Identity | undefined): void {
    this.#identity = next;
    this.#terminator.replace(next);
    if (previous === undefined) return;
    if (!sameBundles(previous.bundles, next.bundles)) this.#cut((peer) => decideTrust(peer, next.bundles));
    this.pool.renew(next);
    this.#server?.drain();
  }

  cutRevoked(list: RevocationList): void {
    this.#cut((peer) => decideRevocation(peer, list));
  }

  /** Peers are asked to go elsewhere. */
  drain(): void {
    this.#server?.drain();
  }

  close(): void {
    this.pool.close();
    this.#server?.close();
  }

  async #dial(target: TunnelTarget): Promise<Dialled | undefined> {
    const dialled = await dialTunnel(target, this.#options);
    if (dialled === undefined) return undefined;
    try {
      this.#admit(dialled.peer, target.identity.bundles);
    } catch (error) {
      dialled.socket.destroy();
      throw error;
    }
    return dialled;
  }

  /** Throws for a peer that bundles or revocations which came during its handshake do not let in: those that came before it have been asked, and those that come later cut what is open. */
  #admit(peer: VerifiedPeer, verifiedBy: TrustBundles): void {
    const revocations = this.#options.revocations();
    if (revocations !== undefined) enforce(decideRevocation(peer, revocations));
    if (this.#identity !== undefined && this.#identity.bundles !== verifiedBy) enforce(decideTrust(peer, this.#identity.bundles));
  }

  #cut(judge: (peer: VerifiedPeer) => Verdict): void {
    const refuses = (peer: VerifiedPeer) => {
      const verdict = judge(peer);
      return verdict.allowed ? undefined : verdict.reason;
    };
    this.pool.cut(refuses);
    this.#server?.cut(refuses);
  }
}

/** A session is no connection: it has no record of its own unless it is refused. */
async function accept(socket: Socket, { server, context }: { server: TunnelServer; context: PipelineContext }): Promise<void> {
  const tracked = context.tracker.open('inbound', socket);
  tracked.own(socket);
  tracked.note({ ...tracked.known, transport: 'mtls', tunnel: 'HBONE' });
  try {
    usableIdentity(context);
    await server.accept(socket);
    tracked.forget();
  } catch (error) {
    tracked.refuse(error);
  }
}

async function dialTunnel(target: TunnelTarget, options: TunnelsOptions): Promise<Dialled | undefined> {
  const { settings, now } = options;
  const at = { address: target.address, port: options.portOf(target.address) };
  let raw: Socket;
  try {
    raw = await dial({ host: at.address, port: at.port, timeoutMs: settings.dialTimeoutMs });
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ECONNREFUSED') return undefined;
    throw dialError(cause, at);
  }
  raw.on('error', () => undefined);
  const { handshakeTimeoutMs } = settings;
  const originated = await originate(raw, { ...target, serverName: undefined, alpn: HTTP2_ALPN, handshakeTimeoutMs, now });
  if (originated.socket.alpnProtocol === HTTP2_ALPN) return originated;
  originated.socket.destroy();
  throw new HandfastError('ALPN_MISMATCH', `${target.destination}: what listens on port ${at.port} does not speak HTTP/2`);
}

/** HBONE's own, at whatever address. */
export const tunnelPort = (): number => TUNNEL_PORT;
