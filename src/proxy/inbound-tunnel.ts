// Inbound through a tunnel: CONNECT -> :authority -> policy -> the peer, verified when its session began -> the application -> splice.

import { HandfastError } from '../errors.ts';
import { parseAuthority } from '../hbone/connect-request.ts';
import { StreamDuplex } from '../hbone/stream-duplex.ts';
import type { TunnelRequest } from '../hbone/tunnel-server.ts';
import type { TunnelStream } from '../hbone/tunnel-stream.ts';
import { readsRequests } from '../policy/decide.ts';
import { show } from './connection-record.ts';
import { govern, locateAt, type PipelineContext } from './context.ts';
import { type Arrived, arrivalOf, dialApplication, judge, settle } from './inbound-judgement.ts';
import { serveRequests, settleRequests } from './inbound-requests.ts';

/** What a peer is told, and it is all it is told: ztunnel's statuses. Whoever dials may try elsewhere only after 503. */
const STATUS: Readonly<Partial<Record<HandfastError['code'], number>>> = {
  DESTINATION_NOT_LOCAL: 400,
  SELF_LOOP: 400,
  DIAL_FAILED: 503,
  DIAL_TIMEOUT: 503,
};
const REFUSED = 401;

/** Takes one stream of a tunnel from its CONNECT to its record. Never rejects. */
export async function inboundTunnel(request: TunnelRequest, context: PipelineContext): Promise<void> {
  const { stream, authority, peer, verifiedBy, remote } = request;
  const tracked = context.tracker.open('inbound', { remoteAddress: remote.address, remotePort: remote.port });
  tracked.note({ ...tracked.known, transport: 'mtls', tunnel: 'HBONE', peer });
  try {
    // A session may live longer than the certificate it began with; a connection of its own would be refused.
    if (!(context.now() <= peer.notAfter))
      throw new HandfastError('CERTIFICATE_EXPIRED', `${peer.id.uri}: its certificate has expired since its session began`);
    const destination = parseAuthority(authority);
    if (destination === undefined) throw new HandfastError('DESTINATION_NOT_LOCAL', 'the :authority of a CONNECT is no address and port');
    const governed = govern(locateAt(tracked, destination, context), context);
    // Only what a redirection could have brought here: not loopback, where applications hide what is nobody else's.
    if (!governed.self.addresses.includes(destination.address))
      throw new HandfastError('DESTINATION_NOT_LOCAL', `${show(destination)} is not an address of this pod`);
    const judged = judge(tracked, governed);
    const arrived: Arrived = { transport: 'mtls', peer, verifiedBy };
    if (readsRequests(judged.policy, arrivalOf(judged, arrived))) {
      const judge = settleRequests(tracked, judged, arrived, context);
      request.accept();
      await serveRequests(tracked, { judged, arrived, judge, stream: tracked.own(new StreamDuplex(stream)) }, context);
      return;
    }
    settle(tracked, judged, arrived, context);
    // A peer that takes its question back ends the dial.
    stream.whenLost(() => tracked.refuse(takenBack(stream)));
    const application = await dialApplication(tracked, judged, { context, paused: true });
    stream.whenLost(undefined);
    if (stream.closed) throw takenBack(stream);
    request.accept();
    tracked.ownStream(stream);
    await tracked.splice({
      downstream: stream,
      upstream: application,
      application,
      halfCloseTimeoutMs: context.settings.halfCloseTimeoutMs,
    });
  } catch (error) {
    request.refuse((error instanceof HandfastError ? STATUS[error.code] : undefined) ?? REFUSED);
    tracked.refuse(error);
  }
}

function takenBack({ brokenBy }: TunnelStream): HandfastError {
  return new HandfastError('UNAVAILABLE', `${brokenBy?.reason ?? 'given up'}, before it was answered`);
}
