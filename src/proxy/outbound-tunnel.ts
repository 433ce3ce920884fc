// Outbound through a tunnel: a stream of a session whose peer has been verified already, and the client's first words with it.

import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { HandfastError } from '../errors.ts';
import type { Answer } from '../hbone/client-session.ts';
import type { Tunnel, TunnelTarget } from '../hbone/tunnel.ts';
import type { TunnelStream } from '../hbone/tunnel-stream.ts';
import type { WorkloadEndpoint } from '../policy/registry.ts';
import type { RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { Governed, Known } from './connection.ts';
import { judgeFromNowOn, type PipelineContext } from './context.ts';
import type { FirstWords } from './first-words.ts';
import { rejudgeProven } from './outbound-judgement.ts';
import type { Tracked } from './tracked.ts';

/** The peer could not reach its application. */
const SERVICE_UNAVAILABLE = 503;
/** Sessions whose peer's certificate has expired, one after another. */
const MAX_EXPIRED = 8;
/** Before the second try in a row, which is twice as long before each further one; the first follows at once. */
const RETRY_FIRST_MS = 5;
const RETRY_LAST_MS = 200;

interface TunnelWay {
  readonly socket: Socket;
  readonly words: FirstWords;
  readonly endpoint: WorkloadEndpoint;
  readonly governed: Governed;
  readonly usable: { readonly identity: Identity; readonly revocations: RevocationList };
  readonly allowed: readonly string[];
  readonly destination: string;
  readonly context: PipelineContext;
}

/**
 * Rejects with DIAL_FAILED or DIAL_TIMEOUT where nothing of the client's has been taken by anybody, so that another endpoint can be tried; with TUNNEL_REFUSED where the peer does not
 * want it. Undefined when nobody takes tunnels at that address: such a peer is called by a session of its own, which is mTLS no less.
 */
export async function reachByTunnel(tracked: Tracked, known: Known, way: TunnelWay): Promise<TunnelStream | undefined> {
  const { endpoint, governed, context, destination, socket } = way;
  const target: TunnelTarget = { source: governed.self.uid, ...way.usable, allowed: way.allowed, address: endpoint.address, destination };
  const until = performance.now() + context.settings.dialTimeoutMs;
  const mustBeWanted = () => {
    if (tracked.isCut || socket.destroyed) throw new HandfastError('UNAVAILABLE', 'the client is gone');
  };
  for (let retries = 0; ; retries++) {
    const acquired = context.tunnels.acquire(target);
    // Without a turn of the event loop where a session is there.
    const tunnel = acquired instanceof Promise ? await acquired : acquired;
    if (tunnel === undefined) return undefined;
    mustBeWanted();
    const { peer, identity } = tunnel;
    // The server's certificate has expired since: a new session shows whether it has another one.
    if (!(context.now() <= peer.notAfter)) {
      tunnel.session.retire();
      if (retries >= MAX_EXPIRED)
        throw new HandfastError('CERTIFICATE_EXPIRED', `${destination}: the certificate of ${peer.id.uri} has expired`);
      continue;
    }
    tracked.note({ ...known, tunnel: 'HBONE', peer });
    judgeFromNowOn(tracked, {
      context,
      judgedBy: governed.mesh,
      verifiedBy: identity.bundles,
      judge: (mesh) => rejudgeProven(mesh, { endpoint, peer, destination, context }),
    });
    const { stream, answer, late, taken } = await ask(tracked, tunnel, way);
    if (answer.kind === 'established') return stream;
    mustBeWanted();
    if (answer.kind === 'refused') {
      const code = answer.status === SERVICE_UNAVAILABLE ? 'DIAL_FAILED' : 'TUNNEL_REFUSED';
      throw new HandfastError(code, `${destination}: its sidecar answered ${answer.status}`);
    }
    if (late) throw new HandfastError(taken ? 'UNAVAILABLE' : 'DIAL_TIMEOUT', `${destination}: its sidecar did not answer in time`);
    if (taken) throw new HandfastError('UNAVAILABLE', `${destination}: ${answer.reason}, with the client's first words on their way`);
    // A session may end, or be full, at the very moment it is asked for a stream: a peer that has not looked at it can be asked again for as long as a dial may take.
    if (!answer.unprocessed || performance.now() >= until) throw new HandfastError('DIAL_FAILED', `${destination}: ${answer.reason}`);
    if (retries > 0) await delay(Math.min(RETRY_LAST_MS, RETRY_FIRST_MS * 2 ** retries));
  }
}

interface Asked {
  readonly stream: TunnelStream;
  readonly answer: Answer;
  /** It was not answered in time. */
  readonly late: boolean;
  /** The client's first words may have been heard by somebody: they cannot be said again. */
  readonly taken: boolean;
}

/** Asks for the stream, and sends the client's first words behind the question. Where the peer refuses it has dropped them, and they can be said to another. */
async function ask(tracked: Tracked, { session }: Tunnel, { endpoint, socket, context, words }: TunnelWay): Promise<Asked> {
  const { dialTimeoutMs, handshakeTimeoutMs } = context.settings;
  const { stream, answered } = session.connect(endpoint);
  tracked.ownStream(stream);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    stream.reset();
    // Perhaps nobody is there any more: whoever comes next finds out by a new one.
    session.retire();
  }, dialTimeoutMs + handshakeTimeoutMs);
  // A client that has gone takes its question back.
  const takeBack = () => stream.reset();
  socket.once('close', takeBack);
  words.sayTo(stream);
  const answer = await answered;
  clearTimeout(timer);
  socket.removeListener('close', takeBack);
  const said = words.stop();
  if (answer.kind === 'established') words.drop();
  return { stream, answer, late, taken: said && answer.kind === 'broken' && !answer.unprocessed };
}
