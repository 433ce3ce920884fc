// The data path in a worker thread: a Sidecar of its own, fed by the main thread with what is in force and with connections for its tunnels.

import type { Socket } from 'node:net';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { HandfastError, messageOf } from '../errors.ts';
import { attach } from '../net/hand-over.ts';
import { logInto } from '../observe/log.ts';
import { Sidecar, type SidecarOptions } from '../proxy/sidecar.ts';
import type { ConnectionTracker } from '../proxy/tracker.ts';
import { LineFeed } from './line-feed.ts';
import type { FromWorker, ToWorker, WorkerSetup, WorkerState } from './messages.ts';
import { SightingFeed } from './sighting-feed.ts';
import { StatusFeed } from './status-feed.ts';
import { WorkerInterests } from './worker-interests.ts';
import { WorkerSnapshots } from './worker-snapshots.ts';

/** What is code and cannot be sent. */
export type WorkerParts = Pick<SidecarOptions, 'originalDestination' | 'tunnelPortOf'>;

/** A mesh that names what has not arrived is published after a second at the latest. */
const BEGIN_WITHIN_MS = 5_000;

/** Runs until the main thread says stop. */
export function runWorker(parts: WorkerParts): void {
  if (parentPort === null) throw new Error('this is no worker thread');
  const port = parentPort;
  const setup: WorkerSetup = workerData;
  const snapshots = new WorkerSnapshots(setup.settings);
  let running: Promise<RunningWorker | undefined> | undefined;
  port.on('message', (message: ToWorker) => {
    switch (message.kind) {
      case 'begin':
        running = begin(message.state, { port, parts, setup, snapshots });
        break;
      case 'change':
        snapshots.apply(message.state);
        break;
      case 'tunnel':
        void running?.then((worker) => worker?.takeTunnel(message));
        break;
      case 'stop':
        void running?.then((worker) => worker?.stop());
        break;
      default:
        message satisfies never;
    }
  });
}

interface Beginning {
  readonly port: MessagePort;
  readonly parts: WorkerParts;
  readonly setup: WorkerSetup;
  readonly snapshots: WorkerSnapshots;
}

/** Listens only when what is in force holds here: a worker that takes another's place refuses nobody for being new. */
async function begin(state: WorkerState, beginning: Beginning): Promise<RunningWorker | undefined> {
  const { snapshots, port } = beginning;
  await snapshots.begin(state, AbortSignal.timeout(BEGIN_WITHIN_MS));
  try {
    return await RunningWorker.start(beginning);
  } catch (error) {
    const code = error instanceof HandfastError ? error.code : undefined;
    const failed: FromWorker = { kind: 'failed', code, reason: messageOf(error) };
    port.postMessage(failed);
    port.close();
    return undefined;
  }
}

class RunningWorker {
  readonly #sidecar: Sidecar;
  readonly #port: MessagePort;
  /** Whatever is said later than it happens. */
  readonly #feeds: readonly { close(): void }[];

  private constructor(sidecar: Sidecar, port: MessagePort, feeds: readonly { close(): void }[]) {
    this.#sidecar = sidecar;
    this.#port = port;
    this.#feeds = feeds;
  }

  static async start({ port, parts, setup, snapshots }: Beginning): Promise<RunningWorker> {
    const say = (message: FromWorker) => port.postMessage(message);
    const lines = new LineFeed((text) => say({ kind: 'log', lines: text }));
    const sightings = new SightingFeed((seen) => say({ kind: 'seen', seen }));
    const interests = new WorkerInterests((use) => say({ kind: 'addresses', use }));
    let tracker: ConnectionTracker | undefined;
    // Also on the way out of an error that nobody caught.
    process.once('exit', () => {
      tracker?.close();
      lines.flush();
      sightings.flush();
    });
    const { settings, ports, drainTimeoutMs, logLevel, worker } = setup;
    const { identity, revocations, mesh } = snapshots;
    const sidecar = await Sidecar.start({
      ...parts,
      settings,
      ports,
      drainTimeoutMs,
      identity,
      revocations,
      mesh,
      interests,
      sightings,
      isOneOfSeveral: true,
      log: logInto(lines, { level: logLevel, base: { role: 'proxy', worker } }),
      now: Date.now,
    });
    tracker = sidecar.tracker;
    const { inbound, outbound } = sidecar.ports;
    say({ kind: 'listening', ports: { inbound, outbound } });
    const status = new StatusFeed({ missing: sidecar.missing, peers: () => sidecar.tracker.livePeers() }, say);
    for (const snapshot of [identity, revocations, mesh]) snapshot.subscribe(() => status.say());
    return new RunningWorker(sidecar, port, [status, interests, sightings, lines]);
  }

  takeTunnel({ fd, nth }: { fd: number; nth: number }): void {
    const say = (message: FromWorker) => this.#port.postMessage(message);
    const socket = attached(fd);
    say({ kind: 'attached', nth });
    if (socket === undefined) {
      say({ kind: 'tunnel-closed' });
      return;
    }
    socket.once('close', () => say({ kind: 'tunnel-closed' }));
    this.#sidecar.acceptTunnel(socket);
  }

  async stop(): Promise<void> {
    await this.#sidecar.stop();
    for (const feed of this.#feeds) feed.close();
    const stopped: FromWorker = { kind: 'stopped' };
    this.#port.postMessage(stopped);
    this.#port.close();
  }
}

/** Undefined where it cannot be: then it is closed, and its peer comes again. */
function attached(fd: number): Socket | undefined {
  try {
    return attach(fd);
  } catch {
    return undefined;
  }
}
