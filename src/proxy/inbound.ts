// Inbound: listener -> original destination -> policy -> sniff -> terminate TLS -> verify the peer -> the application -> splice.

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { HandfastError } from '../errors.ts';
import { type Sniffed, sniff } from '../net/sniff.ts';
import { readsRequests } from '../policy/decide.ts';
import { isMeshAlpn } from '../tls/alpn.ts';
import { show } from './connection-record.ts';
import { govern, locate, type PipelineContext } from './context.ts';
import { type Arrived, arrivalOf, dialApplication, type Judged, judge, settle } from './inbound-judgement.ts';
import { serveRequests, settleRequests } from './inbound-requests.ts';
import type { Tracked } from './tracked.ts';

/** A ClientHello with post-quantum key shares is about 1.8 KB; nobody needs this much. */
const MAX_SNIFF_BYTES = 32 * 1024;

/** How a connection came in, and its decrypted (or plain) stream. */
interface Admitted extends Arrived {
  readonly stream: Duplex;
  /** Already dialled, where the application was asked to speak first. */
  readonly application?: Socket;
}

/** It is still to be seen what it speaks. */
interface Captured extends Judged {
  readonly socket: Socket;
}

/** Takes one redirected connection from accept to its record. Never rejects. */
export async function inbound(socket: Socket, context: PipelineContext): Promise<void> {
  const tracked = context.tracker.open('inbound', socket);
  tracked.own(socket);
  try {
    const located = locate(tracked, socket, context);
    if (!context.local.has(located.originalDestination.address)) {
      throw new HandfastError('DESTINATION_NOT_LOCAL', `${show(located.originalDestination)} is not an address of this pod`);
    }
    const judged = judge(tracked, govern(located, context));
    const admitted = await admit(tracked, { ...judged, socket }, context);
    if (readsRequests(judged.policy, arrivalOf(judged, admitted))) {
      const judge = settleRequests(tracked, judged, admitted, context);
      await serveRequests(tracked, { judged, arrived: admitted, judge, stream: admitted.stream }, context);
      return;
    }
    settle(tracked, judged, admitted, context);
    const application = admitted.application ?? (await dialApplication(tracked, judged, { context }));
    await tracked.splice({
      downstream: admitted.stream,
      upstream: application,
      application,
      halfCloseTimeoutMs: context.settings.halfCloseTimeoutMs,
    });
  } catch (error) {
    tracked.refuse(error);
  }
}

async function admit(tracked: Tracked, judged: Captured, context: PipelineContext): Promise<Admitted> {
  switch (judged.tlsSwitch.mode) {
    case 'DISABLE':
      return { transport: 'plaintext', stream: judged.socket };
    case 'STRICT':
      return terminateStrict(tracked, judged, context);
    case 'PERMISSIVE':
      return admitPermissive(tracked, judged, context);
    default:
      throw new HandfastError('NO_POLICY', `unknown mTLS mode ${String(judged.tlsSwitch.mode satisfies never)}`);
  }
}

async function terminate(
  tracked: Tracked,
  judged: Captured,
  how: { alpn: readonly string[]; context: PipelineContext },
): Promise<Admitted> {
  tracked.note({ ...judged, transport: 'mtls' });
  const { socket, peer, verifiedBy } = await how.context.terminator.terminate(judged.socket, { offersAlpn: how.alpn.length > 0 });
  return { transport: 'mtls', stream: tracked.own(socket, judged.socket), peer, verifiedBy };
}

/** STRICT needs no ALPN to decide, but plaintext should be told from a failed handshake in the record. */
async function terminateStrict(tracked: Tracked, judged: Captured, context: PipelineContext): Promise<Admitted> {
  const sniffed = await sniffFirst(judged, context, { silenceMs: context.settings.handshakeTimeoutMs });
  if (sniffed.kind === 'tls') return terminate(tracked, judged, { alpn: sniffed.alpn, context });
  if (sniffed.kind === 'silent')
    throw new HandfastError(
      'HANDSHAKE_TIMEOUT',
      `no TLS handshake within ${context.settings.handshakeTimeoutMs} ms, STRICT by ${judged.tlsSwitch.source}`,
    );
  return { transport: 'plaintext', stream: judged.socket };
}

async function admitPermissive(tracked: Tracked, judged: Captured, context: PipelineContext): Promise<Admitted> {
  // HTTP servers do not speak first.
  const isHttp = judged.policy.http?.ports.includes(judged.originalDestination.port) === true;
  const { sniffSilenceMs, halfCloseTimeoutMs } = context.settings;
  const sniffed = await sniffFirst(judged, context, { silenceMs: isHttp ? halfCloseTimeoutMs : sniffSilenceMs });
  if (isHttp && sniffed.kind === 'silent') throw new HandfastError('SNIFF_TIMEOUT', `not a word within ${halfCloseTimeoutMs} ms`);
  if (sniffed.kind !== 'silent') return admitSniffed(tracked, judged, { sniffed, context });
  // Neither speaks: perhaps the server is to speak first. It is asked, and until it does the client may still begin a handshake,
  // so that a short silence here never turns a slow mTLS client away.
  const application = await dialApplication(tracked, judged, { context });
  const spoken = firstWord(application);
  const later = await sniffFirst(judged, context, { silenceMs: context.settings.halfCloseTimeoutMs, signal: spoken.signal });
  spoken.stop();
  if (later.kind === 'silent') return { transport: 'plaintext', stream: judged.socket, application };
  return { ...(await admitSniffed(tracked, judged, { sniffed: later, context })), application };
}

async function admitSniffed(tracked: Tracked, judged: Captured, found: { sniffed: Sniffed; context: PipelineContext }): Promise<Admitted> {
  if (found.sniffed.kind !== 'tls') return { transport: 'plaintext', stream: judged.socket };
  // TLS that is not addressed to a sidecar is the application's own: passed on unread, and it proves nobody to us.
  if (!isMeshAlpn(found.sniffed.alpn)) return { transport: 'passthrough-tls', stream: judged.socket };
  return terminate(tracked, judged, { alpn: found.sniffed.alpn, context: found.context });
}

/** Throws for what can be nobody's first bytes. */
async function sniffFirst(judged: Captured, context: PipelineContext, wait: { silenceMs: number; signal?: AbortSignal }): Promise<Sniffed> {
  const sniffed = await sniff(judged.socket, { ...wait, completeMs: context.settings.handshakeTimeoutMs, maxBytes: MAX_SNIFF_BYTES });
  switch (sniffed.kind) {
    case 'too-long':
      throw new HandfastError('SNIFF_LIMIT', `a ClientHello longer than ${MAX_SNIFF_BYTES} bytes`);
    case 'incomplete':
      throw new HandfastError('SNIFF_TIMEOUT', `half a ClientHello, and not the rest within ${context.settings.handshakeTimeoutMs} ms`);
    case 'closed':
      throw new HandfastError('HANDSHAKE_FAILED', 'the peer closed the connection before it could be told what it speaks');
    default:
      return sniffed;
  }
}

/** Aborts its signal when the socket has something to say, or ends; nothing that it says is lost. */
function firstWord(socket: Socket): { signal: AbortSignal; stop(): void } {
  const heard = new AbortController();
  const stop = () => {
    socket.removeListener('data', onData);
    socket.removeListener('end', onEnd);
    socket.removeListener('close', onEnd);
    socket.pause();
  };
  const onEnd = () => {
    stop();
    heard.abort();
  };
  const onData = (chunk: Buffer) => {
    stop();
    socket.unshift(chunk);
    heard.abort();
  };
  socket.on('data', onData);
  socket.once('end', onEnd);
  socket.once('close', onEnd);
  return { signal: heard.signal, stop };
}
