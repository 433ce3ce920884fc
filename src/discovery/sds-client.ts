// The SDS v3 client: subscribes by name, hands each response over whole, and answers ACK or, when it is refused, NACK with the reason.
// State of the world (StreamSecrets) is what every SDS server speaks; delta (DeltaSecrets) sends only what changed.

import type { Snapshot } from '../snapshot.ts';
import { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import type { DiscoveryRequest, DiscoveryResponse } from '../wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceClient } from '../wire/gen/envoy/service/secret/v3/sds.ts';
import { channelOptions } from '../wire/grpc.ts';
import { type GrpcTarget, openStream } from '../wire/grpc-target.ts';
import { answer } from './answer.ts';
import { runDeltaClient } from './delta-client.ts';
import { type DiscoveryLog, maintainStream } from './stream.ts';
import { typeUrls } from './type-urls.ts';

export const sdsProtocols = ['state-of-the-world', 'delta'] as const;

export interface SdsClientOptions {
  readonly target: GrpcTarget;
  readonly nodeId: string;
  readonly token: Snapshot<string> | undefined;
  readonly protocol?: (typeof sdsProtocols)[number];
  readonly resourceNames: readonly string[];
  /** Throws or rejects to refuse the response; nothing of it may be in force then. ACK waits for it. */
  readonly accept: (secrets: readonly Secret[]) => void | Promise<void>;
  readonly log: DiscoveryLog;
  readonly signal: AbortSignal;
}

/** Runs until the signal aborts. */
export function runSdsClient(options: SdsClientOptions): Promise<void> {
  return options.protocol === 'delta' ? runDelta(options) : runStateOfTheWorld(options);
}

async function runStateOfTheWorld(options: SdsClientOptions): Promise<void> {
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
    name: `sds ${options.resourceNames.join(' ')}`,
    open: (metadata) => openSds(options, (client) => client.streamSecrets(metadata)),
    token: options.token,
    onOpen: (send) => send(request({ node })),
    onMessage: (response, send) =>
      answer(
        () => {
          if (response.typeUrl !== '' && response.typeUrl !== typeUrls.secret) throw new Error(`${response.typeUrl} in an SDS response`);
          return options.accept(response.resources.map(decode));
        },
        (errorDetail) => {
          if (errorDetail === undefined) acceptedVersion = response.versionInfo;
          else {
            const refusal = { version: response.versionInfo, reason: errorDetail.message };
            options.log.warn(refusal, 'secret refused (NACK), the last good one stays in force');
          }
          send(request({ responseNonce: response.nonce, errorDetail }));
        },
      ),
    log: options.log,
    signal: options.signal,
  });
}

function runDelta(options: SdsClientOptions): Promise<void> {
  return runDeltaClient({
    ...options,
    name: `sds ${options.resourceNames.join(' ')}`,
    open: (metadata) => openSds(options, (client) => client.deltaSecrets(metadata)),
    subscriptions: new Map([[typeUrls.secret, options.resourceNames]]),
    apply: (typeUrl, { upserts, removed }) => {
      // Taking a certificate away is what revocation is for: until then the last good one serves, and dies when it expires.
      if (removed.length > 0) options.log.warn({ removed }, 'the SDS server withdrew secrets, the last good ones stay in force');
      const secrets = [...upserts].map(([name, value]) => named(name, decode({ typeUrl, value })));
      if (secrets.length > 0) return options.accept(secrets);
    },
  });
}

function openSds<Call extends { once(event: 'status', listener: () => void): unknown }>(
  options: SdsClientOptions,
  open: (client: SecretDiscoveryServiceClient) => Call,
): Call {
  return openStream(SecretDiscoveryServiceClient, { target: options.target, options: channelOptions }, open);
}

/** What is held is told by the resource's name, what is in force by the secret's: they must be one. */
function named(name: string, secret: Secret): Secret {
  if (secret.name !== name) throw new Error(`the resource ${JSON.stringify(name)} holds the secret ${JSON.stringify(secret.name)}`);
  return secret;
}

function decode(any: { typeUrl: string; value: Uint8Array }): Secret {
  if (any.typeUrl !== typeUrls.secret) throw new Error(`resource of type ${any.typeUrl} in an SDS response`);
  return Secret.decode(any.value);
}
