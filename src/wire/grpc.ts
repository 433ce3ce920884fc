// gRPC plumbing that every socket of ours shares: a server, channel options, status errors, the caller's token.

import { type ChannelOptions, Metadata, Server, type ServiceError, type status } from '@grpc/grpc-js';
import { requestDeadline } from './request-deadline.ts';

const MAX_MESSAGE_BYTES = 4 * 1024 * 1024;
/** The registry comes in one response, so that nobody acts on half of it; and so do all secrets that one stream asks for. */
const MAX_REGISTRY_BYTES = 128 * 1024 * 1024;

export const channelOptions: ChannelOptions = {
  'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  // Reconnecting is ours, with jitter: the channel must not sit out a back-off of its own on top.
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1_000,
  'grpc.use_local_subchannel_pool': 1,
  'grpc.enable_http_proxy': 0,
};

export const registryChannelOptions: ChannelOptions = { ...channelOptions, 'grpc.max_receive_message_length': MAX_REGISTRY_BYTES };

/** What a server grants each of its connections. */
export interface ServerBounds {
  readonly maxMessageBytes: number;
  /** Calls at once. */
  readonly maxStreams: number;
  /** How long a request of one message may take to arrive. */
  readonly requestDeadlineMs: number;
}

const defaultBounds: ServerBounds = { maxMessageBytes: MAX_MESSAGE_BYTES, maxStreams: 128, requestDeadlineMs: 10_000 };

export function newServer(bounds: Partial<ServerBounds> = {}): Server {
  const { maxMessageBytes, maxStreams, requestDeadlineMs } = { ...defaultBounds, ...bounds };
  return new Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_concurrent_streams': maxStreams,
    'grpc.keepalive_time_ms': 30_000,
    'grpc.keepalive_timeout_ms': 10_000,
    interceptors: [requestDeadline(requestDeadlineMs)],
  });
}

/** Ends the server: streams are told, and whoever lingers is cut after `graceMs`. */
export async function stopServer(server: Server, graceMs = 500): Promise<void> {
  await new Promise<void>((resolve) => {
    const end = () => {
      clearTimeout(timer);
      server.forceShutdown();
      resolve();
    };
    const timer = setTimeout(end, graceMs);
    // Since Node closes an HTTP/2 server's sessions by itself, grpc-js takes those with open streams for ended: they are ended here.
    server.tryShutdown(end);
  });
}

/** An error as grpc-js sends it. */
export function statusError(code: status, details: string): Pick<ServiceError, 'code' | 'details'> & Error {
  return Object.assign(new Error(details), { code, details });
}

/** The bearer token a caller sent, or undefined. */
export function bearerToken(metadata: Metadata): string | undefined {
  const [value] = metadata.get('authorization');
  const [, token] = typeof value === 'string' ? (/^Bearer (\S+)$/.exec(value) ?? []) : [];
  return token;
}

export function bearerMetadata(token: string | undefined): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

/** Calls back, maybe more than once, when a call is over: ended by the other side, cancelled, or refused by us. */
export function whenOver(call: { on(event: 'end' | 'cancelled' | 'error', listener: () => void): unknown }, act: () => void): void {
  for (const event of ['end', 'cancelled', 'error'] as const) call.on(event, act);
}
