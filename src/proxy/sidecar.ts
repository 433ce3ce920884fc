// The sidecar as a whole: listeners, readiness and the two pipelines around one set of snapshots; started, drained and stopped together.

import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { HandfastError, messageOf } from '../errors.ts';
import { type Listener, listen } from '../net/listener.ts';
import { LocalAddresses } from '../net/local-addresses.ts';
import type { Log } from '../observe/log.ts';
import { type ReadinessServer, serveReadiness } from '../observe/readiness.ts';
import type { MeshSnapshot } from '../policy/mesh-snapshot.ts';
import type { Endpoint } from '../policy/model.ts';
import type { Snapshot } from '../snapshot.ts';
import { noRevocations, type RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { sameBundles } from '../spiffe/trust-bundle.ts';
import { chooseAlpn } from '../tls/alpn.ts';
import { Terminator } from '../tls/terminate.ts';
import { type PipelineContext, type PipelineSettings, selfIn, usableIdentity } from './context.ts';
import { inbound } from './inbound.ts';
import { outbound } from './outbound.ts';
import { ConnectionTracker } from './tracker.ts';

export interface SidecarOptions {
  readonly settings: PipelineSettings;
  readonly ports: { readonly inbound: number; readonly outbound: number; readonly readiness: number };
  readonly drainTimeoutMs: number;
  readonly identity: Snapshot<Identity>;
  readonly revocations: Snapshot<RevocationList>;
  readonly mesh: Snapshot<MeshSnapshot>;
  readonly originalDestination: (socket: Socket) => Endpoint | undefined;
  readonly log: Log;
  readonly now: () => number;
  /** What an operator should know though connections are served. */
  readonly warnings?: () => readonly string[];
}

/** How long a connection that was cut may take to end before nobody waits for it any more. */
const CUT_GRACE_MS = 2_000;

/** The process's other well-known ports: captured traffic for them is never for the application. */
const RESERVED_PORTS = [15000, 15008, 15020];

export class Sidecar {
  readonly ports: { readonly inbound: number; readonly outbound: number; readonly readiness: number };
  readonly tracker: ConnectionTracker;
  readonly #options: SidecarOptions;
  readonly #listeners: readonly Listener[];
  readonly #readiness: ReadinessServer;
  readonly #state: { draining: boolean };

  private constructor(
    options: SidecarOptions,
    parts: { tracker: ConnectionTracker; listeners: [Listener, Listener]; readiness: ReadinessServer; state: { draining: boolean } },
  ) {
    const [inboundListener, outboundListener] = parts.listeners;
    this.#options = options;
    this.tracker = parts.tracker;
    this.#listeners = parts.listeners;
    this.#readiness = parts.readiness;
    this.#state = parts.state;
    this.ports = { inbound: inboundListener.port, outbound: outboundListener.port, readiness: parts.readiness.port };
  }

  /** Listens at once, refusing what cannot be judged yet; readiness says when identity and policy are there. Throws CONFIG_INVALID for a port in use. */
  static async start(options: SidecarOptions): Promise<Sidecar> {
    const { identity, revocations, mesh, log, now } = options;
    const tracker = new ConnectionTracker({ log, now });
    const terminator = new Terminator({
      handshakeTimeoutMs: options.settings.handshakeTimeoutMs,
      chooseAlpn,
      revocations: () => revocations.current ?? noRevocations,
      now,
    });
    const ownPorts = new Set(RESERVED_PORTS);
    const context: PipelineContext = { ...options, ownPorts, local: new LocalAddresses(now), terminator, tracker };
    const state = { draining: false };

    if (identity.current !== undefined) terminator.replace(identity.current);
    identity.subscribe((next, previous) => {
      terminator.replace(next);
      if (previous !== undefined && !sameBundles(previous.bundles, next.bundles)) tracker.cutUntrusted(next.bundles);
    });
    revocations.subscribe((next) => tracker.cutRevoked(next));
    mesh.subscribe((next) => {
      tracker.rejudge(next);
      logPolicy(next, context, log);
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
      const inboundListener = await opened(
        'inbound connections',
        listen({ port: options.ports.inbound, onConnection: (socket) => void inbound(socket, context), onError }),
      );
      const outboundListener = await opened(
        'outbound connections',
        listen({ port: options.ports.outbound, onConnection: (socket) => void outbound(socket, context), onError }),
      );
      const readiness = await opened(
        'readiness',
        serveReadiness({
          port: options.ports.readiness,
          missing: () => missing(context, state),
          warnings: options.warnings ?? (() => []),
          onError,
        }),
      );
      return new Sidecar(options, { tracker, listeners: [inboundListener, outboundListener], readiness, state });
    } catch (error) {
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
    const [inboundListener, ...others] = this.#listeners;
    const closing = [inboundListener?.close()];
    log.info({ connections: this.tracker.size }, 'draining');
    await this.tracker.idle(drainTimeoutMs);
    closing.push(...others.map((listener) => listener.close()), this.#readiness.close());
    this.tracker.cutAll('DRAINING', 'the sidecar is stopping and its drain time is over');
    await this.tracker.idle(CUT_GRACE_MS);
    // A listener is closed only with its last socket: one that does not end when it is cut must not keep the process.
    await Promise.race([Promise.all(closing), delay(CUT_GRACE_MS, undefined, { ref: false })]);
  }
}

/** What holds for this pod from now on. */
function logPolicy(mesh: MeshSnapshot, context: PipelineContext, log: Log): void {
  try {
    const { policy } = selfIn(mesh, context);
    const ports = Object.fromEntries([...policy.inboundPorts].map(([port, { mode }]) => [port, mode]));
    log.info({ mode: policy.inbound.mode, modeSource: policy.inbound.source, ports, outbound: policy.outbound }, 'policy in force');
  } catch (error) {
    log.error({ reason: messageOf(error) }, 'policy refuses every connection');
  }
}

/** Why new connections cannot be served now. */
function missing(context: PipelineContext, state: { draining: boolean }): string[] {
  if (state.draining) return ['draining'];
  const reasons: string[] = [];
  const unless = (check: () => unknown) => {
    try {
      check();
    } catch (error) {
      reasons.push(messageOf(error));
    }
  };
  unless(() => usableIdentity(context));
  if (context.mesh.current === undefined) reasons.push('no policy has arrived from the agent yet');
  else unless(() => context.mesh.current !== undefined && selfIn(context.mesh.current, context));
  return reasons;
}
