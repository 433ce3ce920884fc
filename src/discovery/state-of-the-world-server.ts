// The serving side of state-of-the-world xDS (one type a stream, as SDS has it) over a ResourceView. Only what changed is sent: absence is not deletion.

import { randomUUID } from 'node:crypto';
import { type ServerDuplexStream, status } from '@grpc/grpc-js';
import type { DiscoveryRequest, DiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { statusError, whenOver } from '../wire/grpc.ts';
import { refusalText, shortened } from './answer.ts';
import { type ResourceView, type StreamAnswers, type SubscribedNames, subscribed } from './resource-view.ts';
import { type ResponseRules, ResponseWriter } from './response-writer.ts';
import type { DiscoveryLog } from './stream.ts';

export type StateOfTheWorldStream = ServerDuplexStream<DiscoveryRequest, DiscoveryResponse>;

export interface StateOfTheWorldServerOptions extends ResponseRules {
  readonly typeUrl: string;
  readonly view: ResourceView;
  /** Who is served, for the log. */
  readonly peer: string;
  readonly log: DiscoveryLog;
  readonly answers?: StreamAnswers;
  /** Throws to end the stream: for a name this client may not have. */
  readonly admit?: (request: DiscoveryRequest) => void;
}

const MAX_UNANSWERED = 16;

/** Why something is to be said, the weakest reason first. */
const causes = ['request', 'change', 'superseded'] as const;
type Cause = (typeof causes)[number];

type Versions = ReadonlyMap<string, string>;

/** Serves one stream until it ends. No names ask for everything. */
export function serveStateOfTheWorldStream(call: StateOfTheWorldStream, options: StateOfTheWorldServerOptions): void {
  const { typeUrl, view, peer, log, answers, admit } = options;
  let names: SubscribedNames | undefined;
  let latestNonce = '';
  let ended = false;
  /** What was sent last under each name: sent, not taken. */
  const sent = new Map<string, string>();
  /** Of those, what was refused. It is not sent again for the asking: only with the next change, since it may have been refused for another's sake. */
  const refused = new Map<string, string>();
  /** The responses that are not answered yet, by nonce; the answer to a later one speaks for those before it. */
  const unanswered = new Map<string, Versions>();

  /** Something is to be said once the response before it has left. */
  let waiting: Cause | undefined;
  const writer = new ResponseWriter(call, options, () => {
    const why = waiting;
    waiting = undefined;
    if (why !== undefined) push(why);
  });

  const push = (why: Cause) => {
    if (!writer.free) {
      if (waiting === undefined || causes.indexOf(why) > causes.indexOf(waiting)) waiting = why;
      return;
    }
    const resources = view.resources(typeUrl);
    // Answers may take their time; for a client that gives none at all later changes gather, and go out as one.
    if (ended || names === undefined || resources === undefined || unanswered.size >= MAX_UNANSWERED) return;
    const wanted = subscribed(names, resources);
    const fresh = wanted.filter(([name, { version }]) => sent.get(name) !== version);
    const again = why === 'request' ? [] : wanted.filter(([name, { version }]) => refused.get(name) === version);
    const changed = [...fresh, ...again];
    if (fresh.length === 0 && (why !== 'superseded' || changed.length === 0)) return;
    if (!writer.mayPush()) return;
    const versions = new Map(changed.map(([name, { version }]) => [name, version]));
    for (const [name, version] of versions) {
      sent.set(name, version);
      refused.delete(name);
    }
    latestNonce = randomUUID();
    unanswered.set(latestNonce, versions);
    writer.write({
      versionInfo: [...versions.values()].join(' '),
      typeUrl,
      nonce: latestNonce,
      resources: changed.map(([, { value }]) => ({ typeUrl, value: Buffer.from(value) })),
    });
  };

  const changeNames = (asked: readonly string[]) => {
    const next = asked.length === 0 || asked.includes('*') ? 'everything' : new Set(asked);
    names = next;
    if (next === 'everything') return;
    const dropped = [...sent.keys()].filter((name) => !next.has(name));
    if (dropped.length === 0) return;
    // A name that is dropped and asked for again later is sent again.
    for (const name of dropped) {
      sent.delete(name);
      refused.delete(name);
    }
    answers?.dropped?.({ typeUrl, names: dropped });
  };

  /** The verdict on a response, and on those before it that got none of their own. */
  const judge = ({ responseNonce: nonce, errorDetail }: DiscoveryRequest) => {
    const versions = new Map<string, string>();
    for (const [earlier, those] of unanswered) {
      unanswered.delete(earlier);
      writer.answered(earlier);
      for (const [name, version] of those) if (sent.has(name)) versions.set(name, version);
      if (earlier === nonce) break;
    }
    if (errorDetail === undefined) {
      answers?.acked?.({ typeUrl, versions });
      return;
    }
    const reason = refusalText(errorDetail);
    log.warn({ peer, names: [...versions.keys()], reason }, 'secret refused by the workload (NACK)');
    answers?.nacked?.({ typeUrl, versions, reason });
    const latest = [...versions].filter(([name, version]) => sent.get(name) === version);
    for (const [name, version] of latest) refused.set(name, version);
    // What came in its place is on its way already: the rest was perhaps refused for its sake, and goes out now.
    if (latest.length > 0 && latest.length < versions.size) push('superseded');
  };

  const unsubscribe = view.subscribe((changedType) => {
    if (changedType === typeUrl) push('change');
  });
  call.on('data', (request: DiscoveryRequest) => {
    // What was sent before the refusal was read.
    if (ended) return;
    try {
      if (request.typeUrl !== '' && request.typeUrl !== typeUrl)
        throw statusError(status.INVALID_ARGUMENT, `${shortened(request.typeUrl)} is not served here, only ${typeUrl}`);
      admit?.(request);
    } catch (error) {
      call.emit('error', error);
      return;
    }
    const { responseNonce: nonce } = request;
    if (unanswered.has(nonce)) judge(request);
    // Names count with the latest nonce alone, which a change of them repeats; that of a server before us comes with the first request.
    if (names !== undefined && nonce !== '' && nonce !== latestNonce) return;
    changeNames(request.resourceNames);
    push('request');
  });
  whenOver(call, () => {
    ended = true;
    writer.end();
    unsubscribe();
  });
  call.on('end', () => call.end());
}
