// The application asked by grpc.health.v1.Health/Check, in plaintext as kubelet asks. One unary call by node:http2: a channel of grpc-js cannot be told its source address.

import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2';
import { BinaryReader, BinaryWriter } from '@bufbuild/protobuf/wire';
import { endpointText } from '../policy/ip.ts';
import type { GrpcAction } from './app-probers.ts';
import { type Asking, dialApplication, type ProbeAnswer } from './asking.ts';

const METHOD = '/grpc.health.v1.Health/Check';
const MAX_ANSWER_BYTES = 10_240;
/** gRPC over HTTP/2: a flag for compression, and four bytes of length. */
const PREFIX_BYTES = 5;
const OK = '0';
const UNIMPLEMENTED = '12';
/** grpc.health.v1.HealthCheckResponse.ServingStatus */
const SERVING = 1;
const STATUS_NAMES = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];

interface Answer {
  readonly headers: IncomingHttpHeaders;
  readonly trailers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** Rejects where it was not answered. */
export async function grpcProbe(action: GrpcAction, asking: Asking): Promise<ProbeAnswer> {
  const socket = await dialApplication(action.port, asking);
  const authority = endpointText({ address: asking.address, port: action.port });
  const session = connect(`http://${authority}`, { createConnection: () => socket, settings: { enablePush: false } });
  try {
    return judged(await check(session, { action, asking, authority }));
  } finally {
    session.destroy();
    socket.destroy();
  }
}

function check(
  session: ClientHttp2Session,
  { action, asking, authority }: { action: GrpcAction; asking: Asking; authority: string },
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    session.on('error', reject);
    const call = session.request(
      {
        ':method': 'POST',
        ':path': METHOD,
        ':authority': authority,
        'content-type': 'application/grpc',
        te: 'trailers',
        'grpc-timeout': `${asking.timeoutMs}m`,
        ...(asking.userAgent === undefined ? {} : { 'user-agent': asking.userAgent }),
      },
      { signal: asking.signal },
    );
    let headers: IncomingHttpHeaders = {};
    let trailers: IncomingHttpHeaders = {};
    const chunks: Buffer[] = [];
    let read = 0;
    call.on('error', reject);
    call.once('response', (received) => {
      headers = received;
    });
    call.once('trailers', (received) => {
      trailers = received;
    });
    call.on('data', (chunk: Buffer) => {
      read += chunk.length;
      if (read > MAX_ANSWER_BYTES) reject(new Error(`the answer is longer than ${MAX_ANSWER_BYTES} bytes`));
      else chunks.push(chunk);
    });
    call.once('close', () => resolve({ headers, trailers, body: Buffer.concat(chunks) }));
    call.end(framed(new BinaryWriter().uint32(10).string(action.service).finish()));
  });
}

function framed(message: Uint8Array): Buffer {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

function judged({ headers, trailers, body }: Answer): ProbeAnswer {
  const http = headers[':status'];
  if (http === undefined) return unwell('the call ended without an answer');
  if (Number(http) !== 200) return unwell(`the call was answered with HTTP status ${http}`);
  // An error that comes at once has its status in the headers.
  const status = text(trailers['grpc-status'] ?? headers['grpc-status']);
  const message = text(trailers['grpc-message'] ?? headers['grpc-message']).slice(0, 200);
  if (status === UNIMPLEMENTED) return unwell(`the application does not implement grpc.health.v1.Health: ${message}`);
  if (status !== OK) return unwell(`the call ended with gRPC status ${status === '' ? 'missing' : status}: ${message}`);
  const serving = servingStatus(body);
  if (serving === SERVING) return { status: 200, text: 'the application answered SERVING' };
  return unwell(`the application answered ${STATUS_NAMES[serving] ?? serving}`);
}

function unwell(reason: string): ProbeAnswer {
  return { status: 500, text: reason };
}

function text(value: string | string[] | undefined): string {
  return typeof value === 'string' ? value : '';
}

/** Throws for what is no HealthCheckResponse. */
function servingStatus(body: Buffer): number {
  if (body.length < PREFIX_BYTES || body[0] !== 0 || body.readUInt32BE(1) !== body.length - PREFIX_BYTES)
    throw new Error('the answer is not one whole message');
  const reader = new BinaryReader(body.subarray(PREFIX_BYTES));
  let serving = 0;
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1 && wireType === 0) serving = reader.int32();
    else reader.skip(wireType, field);
  }
  return serving;
}
