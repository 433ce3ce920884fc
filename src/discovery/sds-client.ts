// The SDS v3 client (StreamSecrets): subscribes, hands each response over whole, and answers ACK or, when it is refused, NACK with the reason.

import { credentials, status } from '@grpc/grpc-js';
import { messageOf } from '../errors.ts';
import type { Snapshot } from '../snapshot.ts';
import { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient } from '../wire/gen/envoy/service/secret/v3/sds.ts';
import { channelOptions } from '../wire/grpc.ts';
import { type DiscoveryLog, maintainStream } from './stream.ts';
import { typeUrls } from './type-urls.ts';

export interface SdsClientOptions {
  /** gRPC address: `unix:/run/handfast/agent.sock`. */
  readonly address: string;
  readonly nodeId: string;
  readonly token: Snapshot<string> | undefined;
  readonly resourceNames: readonly string[];
  /** Throws to refuse the response; nothing of it may be in force then. */
  readonly accept: (secrets: readonly Secret[]) => void;
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

/** Runs until the signal aborts. */
export async function runSdsClient(options: SdsClientOptions): Promise<void> {
  const client = new SecretDiscoveryServiceClient(options.address, credentials.createInsecure(), channelOptions);
  let acceptedVersion = '';
  const request = (fields: Partial<DiscoveryRequest>): DiscoveryRequest => ({
    versionInfo: acceptedVersion,
    node: undefined,
    resourceNames: [...options.resourceNames],
    typeUrl: typeUrls.secret,
    responseNonce: '',
    errorDetail: undefined,
    ...fields,
  });
  const node = { id: options.nodeId, cluster: '', metadata: undefined, userAgentName: 'handfast', userAgentVersion: '' };

  await maintainStream<DiscoveryRequest, DiscoveryResponse>({
    name: 'sds',
    open: (metadata) => client.streamSecrets(metadata),
    token: options.token,
    onOpen: (send) => send(request({ node })),
    onMessage: (response, send) => {
      try {
        options.accept(decode(response));
        acceptedVersion = response.versionInfo;
        send(request({ responseNonce: response.nonce }));
      } catch (error) {
        const message = messageOf(error);
        options.log.warn({ version: response.versionInfo, reason: message }, 'secret refused (NACK), the last good one stays in force');
        send(request({ responseNonce: response.nonce, errorDetail: { code: status.INVALID_ARGUMENT, message, details: [] } }));
      }
    },
    log: options.log,
    signal: options.signal,
  });
  client.close();
}

function decode(response: DiscoveryResponse): Secret[] {
  return response.resources.map((any) => {
    if (any.typeUrl !== typeUrls.secret) throw new Error(`resource of type ${any.typeUrl} in an SDS response`);
    return Secret.decode(any.value);
  });
}
