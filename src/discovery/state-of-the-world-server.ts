// The serving side of state-of-the-world xDS (one type a stream, as SDS has it) over a ResourceView. Only what changed is sent: absence is not deletion.

import { randomUUID } from 'node:crypto';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { DiscoveryRequest, DiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { type ResourceView, type StreamAnswers, type SubscribedNames, subscribed } from './resource-view.ts';
import type { DiscoveryLog } from './stream.ts';

export type StateOfTheWorldStream = ServerDuplexStream<DiscoveryRequest, DiscoveryResponse>;

export interface StateOfTheWorldServerOptions {
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

/** Serves one stream until it ends. No names ask for everything. */
export function serveStateOfTheWorldStream(call: StateOfTheWorldStream, options: StateOfTheWorldServerOptions): void {
  const { typeUrl, view, peer, log, answers, admit } = options;
  let names: SubscribedNames | undefined;
  /** What was sent last under each name: sent, not taken; a refused one is not sent again until it changes. */
  const sent = new Map<string, string>();
  /** The responses that are not answered yet; the answer to the latest one speaks for all. */
  let unanswered: { readonly nonce: string; readonly versions: ReadonlyMap<string, string>; readonly responses: number } | undefined;

  const push = (changedType: string) => {
    const resources = changedType === typeUrl ? view.resources(typeUrl) : undefined;
    // Answers may take their time; for a client that gives none at all later changes gather, and go out as one.
    if (names === undefined || resources === undefined || (unanswered?.responses ?? 0) >= MAX_UNANSWERED) return;
    const changed = subscribed(names, resources).filter(([name, { version }]) => sent.get(name) !== version);
    if (changed.length === 0) return;
    const versions = new Map(changed.map(([name, { version }]) => [name, version]));
    for (const [name, version] of versions) sent.set(name, version);
    unanswered = {
      nonce: randomUUID(),
      versions: new Map([...(unanswered?.versions ?? []), ...versions]),
      responses: (unanswered?.responses ?? 0) + 1,
    };
    call.write({
      versionInfo: [...versions.values()].join(' '),
      typeUrl,
      nonce: unanswered.nonce,
      resources: changed.map(([, { value }]) => ({ typeUrl, value: Buffer.from(value) })),
    });
  };

  const unsubscribe = view.subscribe(push);
  call.on('data', (request: DiscoveryRequest) => {
    try {
      admit?.(request);
    } catch (error) {
      call.emit('error', error);
      return;
    }
    // An answer that is not to our response says nothing; the nonce of a server before us comes with the first request alone.
    if (names !== undefined && request.responseNonce !== '' && request.responseNonce !== unanswered?.nonce) return;
    if (unanswered !== undefined && request.responseNonce === unanswered.nonce) {
      const { versions } = unanswered;
      unanswered = undefined;
      if (request.errorDetail === undefined) answers?.acked?.({ typeUrl, versions });
      else {
        const reason = request.errorDetail.message;
        log.warn({ peer, names: [...versions.keys()], reason }, 'secret refused by the workload (NACK)');
        answers?.nacked?.({ typeUrl, versions, reason });
      }
    }
    names = request.resourceNames.length === 0 ? 'everything' : new Set(request.resourceNames);
    // A name that is dropped and asked for again later is sent again.
    if (names !== 'everything') for (const name of [...sent.keys()]) if (!names.has(name)) sent.delete(name);
    push(typeUrl);
  });
  call.on('error', unsubscribe);
  call.on('cancelled', unsubscribe);
  call.on('end', () => {
    unsubscribe();
    call.end();
  });
}
