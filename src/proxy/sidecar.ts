// The sidecar as a whole: listeners, readiness and the two pipelines around one set of snapshots; started, drained and stopped together.

import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { HandfastError, messageOf } from '../errors.ts';
import { TUNNEL_PORT } from '../hbone/tunnel-pool.ts';
import { RequestServer } from '../http/request-server.ts';
import { type Listener, listen } from '../net/listener.ts';
import { LocalAddresses } from '../net/local-addresses.ts';
import type { SightingSink } from '../observe/ledger.ts';
import type { HttpListener } from '../observe/listen-http.ts';
import type { Log } from '../observe/log.ts';
import { serveReadiness } from '../observe/readiness.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Endpoint } from '../policy/model.ts';
import { type Rate, TokenBucket } from '../rate-limit.ts';
import type { Snapshot } from '../snapshot.ts';
import { noRevocations, type RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { sameBundles } from '../spiffe/trust-bundle.ts';
import { chooseAlpn } from '../tls/alpn.ts';
import { Terminator } from '../tls/terminate.ts';
import { CallerNames } from './caller-names.ts';
import type { AddressInterests, PipelineContext, PipelineSettings } from './context.ts';
import { inbound } from './inbound.ts';
import { KnownAddresses } from './known-addresses.ts';
import { outbound } from './outbound.ts';
import { changesForPod, logPolicy, missing } from './standing.ts';
import { ConnectionTracker } from './tracker.ts';
import { Tunnels, tunnelPort } from './tunnels.ts';

/** Where it listens; 0 takes any free one. */
export interface SidecarPorts {
  readonly inbound: number;
  readonly outbound: number;
  readonly tunnel: number;
  readonly readiness: number;
}

export interface SidecarOptions {
  readonly settings: PipelineSettings;
  readonly ports: SidecarPorts;
  readonly drainTimeoutMs: number;
  readonly identity: Snapshot<Identity>;
  readonly revocations: Snapshot<RevocationList>;
  readonly mesh: Snapshot<MeshSnapshot>;
  readonly interests: AddressInterests;
  readonly originalDestination: (socket: Socket) => Endpoint | undefined;
  readonly log: Log;
  readonly now: () => number;
  /** The port at which a peer takes tunnels. Default: HBONE's own. */
  readonly tunnelPortOf?: (address: string) => number;
  /** What an operator should know though connections are served. */
  readonly warnings?: () => readonly string[];
  /** Where connections are noted. Default: a ledger of its own. */
  readonly sightings?: SightingSink;
  /** One of several in this process: they share the ports for redirected connections. Tunnels and readiness are served elsewhere, at `ports`; tunnels are brought by `acceptTunnel`. */
  readonly isOneOfSeveral?: boolean;
}

/** How long a connection that was cut may take to end before nobody waits for it any more. */
const CUT_GRACE_MS = 2_000;

/** A hundredth of what an agent is asked for at most. */
const REFUSED_CALLERS: Rate = { burst: 50, perSecond: 10 };

/** The process's other well-known ports: captured traffic for them is never for the application. */
const RESERVED_PORTS = [15000, 15004, TUNNEL_PORT, 15020];

interface Listeners {
  readonly inbound: Listener;
  readonly outbound: Listener;
  /** Undefined where they are somebody else's. */
  readonly tunnel: Listener | undefined;
  readonly readiness: HttpListener | undefined;
}

export class Sidecar {
  readonly ports: SidecarPorts;
  readonly tracker: ConnectionTracker;
  /** Takes a connection to the tunnels' port, paused. */
  readonly acceptTunnel: (socket: Socket) => void;
  /** Why new connections cannot be served now; empty when they can. */
  readonly missing: () => string[];
  readonly #options: SidecarOptions;
  readonly #listeners: Listeners;
  readonly #tunnels: Tunnels;
  readonly #requests: RequestServer;
  readonly #state: { draining: boolean };

  private constructor(
    options: SidecarOptions,
    parts: {
      context: PipelineContext;
      listeners: Listeners;
      tunnels: Tunnels;
      acceptTunnel: (socket: Socket) => void;
      state: { draining: boolean };
    },
  ) {
    const { listeners, context, state } = parts;
    this.#options = options;
    this.#tunnels = parts.tunnels;
    this.tracker = context.tracker;
    this.#requests = context.requests;
    this.acceptTunnel = parts.acceptTunnel;
    this.missing = () => missing(context, state);
    this.#listeners = listeners;
    this.#state = state;
    this.ports = {
      inbound: listeners.inbound.port,
      outbound: listeners.outbound.port,
      tunnel: listeners.tunnel?.port ?? options.ports.tunnel,
      readiness: listeners.readiness?.port ?? options.ports.readiness,
    };
  }

  /** Listens at once, refusing what cannot be judged yet; readiness says when identity and policy are there. Throws CONFIG_INVALID for a port in use. */
  static async start(options: SidecarOptions): Promise<Sidecar> {
    const { identity, revocations, mesh, log, now } = options;
    const names = new CallerNames(mesh);
    const tracker = new ConnectionTracker({ log, now, names, sightings: options.sightings });
    const terminator = new Terminator({
      handshakeTimeoutMs: options.settings.handshakeTimeoutMs,
      chooseAlpn,
      revocations: () => revocations.current ?? noRevocations,
      now,
    });
    const tunnels = new Tunnels({
      settings: options.settings,
      portOf: options.tunnelPortOf ?? tunnelPort,
      revocations: () => revocations.current,
      now,
    });
    const ownPorts = new Set(RESERVED_PORTS);
    const local = new LocalAddresses(now);
    const known = new KnownAddresses(mesh);
    const refusedCallers = new TokenBucket(REFUSED_CALLERS);
    const { forwardClientCert, halfCloseTimeoutMs } = options.settings;
    const requests = new RequestServer({ forwardClientCert, halfCloseTimeoutMs, now });
    const context: PipelineContext = {
      ...options,
      ...{ ownPorts, local, terminator, known, refusedCallers, tunnels: tunnels.pool, tracker, requests },
    };
    const state = { draining: false };

    if (identity.current !== undefined) {
      terminator.replace(identity.current);
      tunnels.replace(identity.current, undefined);
    }
    // Connections before the tunnels that carry them: so each is recorded with its own reason.
    identity.subscribe((next, previous) => {
      terminator.replace(next);
      if (previous !== undefined && !sameBundles(previous.bundles, next.bundles)) tracker.cutUntrusted(next.bundles);
      tunnels.replace(next, previous);
    });
    revocations.subscribe((next) => {
      tracker.cutRevoked(next);
      tunnels.cutRevoked(next);
    });
    mesh.subscribe((next, previous) => {
      // One more destination is known, say: that is nothing to those who came in.
      const { changed, policyChanged } = changesForPod(next, previous, context);
      tracker.rejudge(next, changed ? undefined : 'outbound');
      if (policyChanged) logPolicy(next, context, log);
    });

    let quietUntil = 0;
    const onError = (error: Error) => {
      if (now() < quietUntil) return;
      quietUntil = now() + 1_000;
      log.error({ reason: messageOf(error), connections: tracker.size }, 'connection not accepted');
    };
    const open: { close(): Promise<void> }[] = [];
    try {
      const opened = async <T extends { port: number; close(): Promise<void> }>(what: string, opening: Promise<T>): Promise<T> => {
        const listener = await opening.catch((cause) => {
          throw new HandfastError('CONFIG_INVALID', `cannot listen for ${what}: ${messageOf(cause)}`, { cause });
        });
        ownPorts.add(listener.port);
        open.push(listener);
        return listener;
      };
      const reusePort = options.isOneOfSeveral === true;
      const inboundListener = await opened(
        'inbound connections',
        listen({ port: options.ports.inbound, reusePort, onConnection: (socket) => void inbound(socket, context), onError }),
      );
      const outboundListener = await opened(
        'outbound connections',
        // The clients are this pod's own: the kernel knows when they end.
        listen({
          port: options.ports.outbound,
          reusePort,
          keepAlive: false,
          onConnection: (socket) => void outbound(socket, context),
          onError,
        }),
      );
      const acceptTunnel = tunnels.serve(context);
      const listeners = { inbound: inboundListener, outbound: outboundListener };
      const parts = { context, tunnels, acceptTunnel, state };
      if (options.isOneOfSeveral === true) {
        for (const port of [options.ports.tunnel, options.ports.readiness]) ownPorts.add(port);
        return new Sidecar(options, { ...parts, listeners: { ...listeners, tunnel: undefined, readiness: undefined } });
      }
      const tunnel = await opened('tunnels', listen({ port: options.ports.tunnel, onConnection: acceptTunnel, onError }));
      const readiness = await opened(
        'readiness',
        serveReadiness({
          port: options.ports.readiness,
          missing: () => missing(context, state),
          warnings: options.warnings ?? (() => []),
          onError,
        }),
      );
      return new Sidecar(options, { ...parts, listeners: { ...listeners, tunnel, readiness } });
    } catch (error) {
      tunnels.close();
      requests.close();
      await Promise.all(open.map((listener) => listener.close()));
      throw error;
    }
  }

  /**
   * Not ready any more and deaf to new inbound connections at once; the application may still call out while it finishes. When every connection
   * has ended or the drain time is over nothing more is accepted, and what is still open is cut. Always resolves.
   */
  async stop(): Promise<void> {
    const { log, drainTimeoutMs } = this.#options;
    this.#state.draining = true;
    const { inbound: inboundListener, tunnel, outbound: outboundListener, readiness } = this.#listeners;
    const closing = [inboundListener.close(), tunnel?.close()];
    this.#tunnels.drain();
    this.#requests.drain();
    log.info({ connections: this.tracker.size }, 'draining');
    await this.tracker.idle(drainTimeoutMs);
    closing.push(outboundListener.close(), readiness?.close());
    this.tracker.cutAll('DRAINING', 'the sidecar is stopping and its drain time is over');
    await this.tracker.idle(CUT_GRACE_MS);
    this.tracker.close();
    this.#tunnels.close();
    this.#requests.close();
    // A listener is closed only with its last socket: one that does not end when it is cut must not keep the process.
    await Promise.race([Promise.all(closing), delay(CUT_GRACE_MS, undefined, { ref: false })]);
  }
}
