// Inbound on a port that is declared HTTP: the transport is judged for the connection, all else for each request, by the policy that is in force then.

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { HandfastError } from '../errors.ts';
import { type DialOptions, dial } from '../net/dial.ts';
import { decideInbound } from '../policy/decide.ts';
import { switchFor } from '../policy/model.ts';
import { show } from './connection-record.ts';
import { enforce, judgeFromNowOn, type PipelineContext } from './context.ts';
import { type Arrived, applicationOf, arrivalOf, type Judged, noteArrival } from './inbound-judgement.ts';
import { RequestJudge } from './request-judge.ts';
import type { Tracked } from './tracked.ts';

/** The verdict on the transport, now and whenever the mesh changes, with the open request's. Throws its code. */
export function settleRequests(tracked: Tracked, judged: Judged, arrived: Arrived, context: PipelineContext): RequestJudge {
  const arrival = arrivalOf(judged, arrived);
  const { policy, mesh } = judged;
  const verdict = decideInbound(switchFor(policy, arrival.destination.port), arrival.transport);
  const shadow = decideInbound(switchFor(policy.shadow ?? policy, arrival.destination.port), arrival.transport);
  noteArrival(tracked, { judged, arrived, verdict, shadow }, context);
  enforce(verdict);
  const judge = new RequestJudge(arrival, context);
  judgeFromNowOn(tracked, {
    context,
    judgedBy: mesh,
    ...(arrived.verifiedBy === undefined ? {} : { verifiedBy: arrived.verifiedBy }),
    judge: (next) => judge.rejudge(next),
  });
  return judge;
}

/** Serves an admitted connection until it ends. */
export function serveRequests(
  tracked: Tracked,
  of: { judged: Judged; arrived: Arrived; judge: RequestJudge; stream: Duplex },
  context: PipelineContext,
): Promise<void> {
  const { judged, judge, stream } = of;
  const { peer } = of.arrived;
  const by = judged.self.identity?.uri;
  return tracked.answer(({ abort, onCounts }) =>
    context.requests.serve(
      {
        stream,
        from: peer === undefined || by === undefined ? undefined : { by, peer },
        authority: show(judged.originalDestination),
        dial: () => dialNow(tracked, applicationOf(judged, context)),
        judge: (request) => judge.judge(request),
        ended: (end) => context.tracker.noteRequest(tracked, end, judge.ended()),
        abort,
      },
      onCounts,
    ),
  );
}

/** The socket is there at once; that it was in vain it says itself. */
function dialNow(tracked: Tracked, options: DialOptions): Socket {
  const handed: Socket[] = [];
  dial({ ...options, onSocket: (socket) => handed.push(tracked.own(socket)) }).catch(() => undefined);
  const [socket] = handed;
  if (socket === undefined) throw new HandfastError('DIAL_FAILED', `${options.host} cannot be dialled`);
  return socket;
}
