// What RFC 9113 forbids a client to say, section by section, and what a server is to do about it.

import {
  ACK,
  block,
  Code,
  connectFields,
  connectTo,
  data,
  END_HEADERS,
  END_STREAM,
  frame,
  headers,
  PADDED,
  PRIORITY,
  ping,
  reset,
  settings,
  Type,
  uint32,
  windowUpdate,
} from './h2-frames.ts';

export const byte = (n: number) => Buffer.alloc(n, 1);
export const authority = connectFields('127.0.0.1:80');
const { DATA, HEADERS, PRIORITY: PRIO, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION } = Type;

/** A code, or one of several. */
export type Case = readonly [name: string, code: number | readonly number[], ...said: Buffer[]];

/** Ends the session with one of these codes. */
export const sessionErrors: readonly Case[] = [
  // 4.1, 4.2
  ['a-frame-above-the-maximum', Code.FRAME_SIZE_ERROR, connectTo(1), data(1, byte(16_385))],
  ['headers-above-the-maximum', Code.FRAME_SIZE_ERROR, frame(HEADERS, END_HEADERS, 1, byte(16_385))],
  // 4.3
  [
    'a-header-block-that-is-no-hpack',
    Code.COMPRESSION_ERROR,
    frame(HEADERS, END_HEADERS, 1, Buffer.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff)),
  ],
  ['an-index-of-nothing', Code.COMPRESSION_ERROR, frame(HEADERS, END_HEADERS, 1, Buffer.of(0x80))],
  ['an-index-beyond-the-table', Code.COMPRESSION_ERROR, frame(HEADERS, END_HEADERS, 1, Buffer.of(0xbe + 5))],
  ['a-table-larger-than-announced', Code.COMPRESSION_ERROR, frame(HEADERS, END_HEADERS, 1, Buffer.of(0x3f, 0xe2, 0x3f))],
  ['a-block-cut-in-the-middle-of-a-field', Code.COMPRESSION_ERROR, frame(HEADERS, END_HEADERS, 1, block(authority).subarray(0, -1))],
  [
    'hpack-errors-in-trailers-of-a-closed-stream',
    Code.COMPRESSION_ERROR,
    connectTo(1),
    reset(1),
    frame(HEADERS, END_HEADERS | END_STREAM, 1, Buffer.of(0x80)),
  ],
  // 5.1
  ['data-on-an-idle-stream', Code.PROTOCOL_ERROR, data(5, 'x')],
  ['a-reset-of-an-idle-stream', Code.PROTOCOL_ERROR, reset(5)],
  ['a-window-update-on-an-idle-stream', Code.PROTOCOL_ERROR, windowUpdate(5, 1)],
  // 5.1.1
  ['an-even-stream', Code.PROTOCOL_ERROR, connectTo(2)],
  ['headers-on-stream-0', Code.PROTOCOL_ERROR, connectTo(0)],
  // 6.1
  ['data-on-stream-0', Code.PROTOCOL_ERROR, data(0, 'x')],
  ['more-padding-than-data', Code.PROTOCOL_ERROR, connectTo(1), frame(DATA, PADDED, 1, Buffer.of(5, 1, 1, 1, 1))],
  ['padding-as-long-as-the-frame', Code.PROTOCOL_ERROR, connectTo(1), frame(DATA, PADDED, 1, Buffer.of(1))],
  ['padded-data-without-its-length', [Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR], connectTo(1), frame(DATA, PADDED, 1)],
  // 6.2
  [
    'more-padding-than-headers',
    Code.PROTOCOL_ERROR,
    frame(HEADERS, END_HEADERS | PADDED, 1, Buffer.concat([Buffer.of(200), block(authority)])),
  ],
  [
    'headers-too-short-for-their-priority',
    [Code.FRAME_SIZE_ERROR, Code.PROTOCOL_ERROR],
    frame(HEADERS, END_HEADERS | PRIORITY, 1, byte(3)),
  ],
  // 6.3
  ['priority-on-stream-0', Code.PROTOCOL_ERROR, frame(PRIO, 0, 0, byte(5))],
  // 6.4
  ['a-reset-of-stream-0', Code.PROTOCOL_ERROR, reset(0)],
  ['a-reset-that-is-too-long', Code.FRAME_SIZE_ERROR, connectTo(1), frame(RST_STREAM, 0, 1, byte(5))],
  // 6.5
  ['settings-on-a-stream', Code.PROTOCOL_ERROR, frame(SETTINGS, 0, 1)],
  ['settings-of-5-bytes', Code.FRAME_SIZE_ERROR, frame(SETTINGS, 0, 0, byte(5))],
  ['an-acknowledgement-with-a-payload', Code.FRAME_SIZE_ERROR, frame(SETTINGS, ACK, 0, byte(6))],
  ['enable-push-of-2', Code.PROTOCOL_ERROR, settings([2, 2])],
  ['a-window-above-the-maximum', Code.FLOW_CONTROL_ERROR, settings([4, 0x8000_0000])],
  ['frames-below-the-minimum', Code.PROTOCOL_ERROR, settings([5, 16_383])],
  ['frames-above-the-maximum', Code.PROTOCOL_ERROR, settings([5, 0x100_0000])],
  // 6.6
  [
    'a-push-by-the-client',
    Code.PROTOCOL_ERROR,
    connectTo(1),
    frame(PUSH_PROMISE, END_HEADERS, 1, Buffer.concat([uint32(2), block(authority)])),
  ],
  // 6.7
  ['a-ping-on-a-stream', Code.PROTOCOL_ERROR, frame(PING, 0, 1, byte(8))],
  ['a-ping-of-7-bytes', Code.FRAME_SIZE_ERROR, frame(PING, 0, 0, byte(7))],
  // 6.8
  ['a-goaway-on-a-stream', Code.PROTOCOL_ERROR, frame(GOAWAY, 0, 1, byte(8))],
  ['a-goaway-that-is-too-short', Code.FRAME_SIZE_ERROR, frame(GOAWAY, 0, 0, byte(7))],
  // 6.9
  ['a-window-update-of-0-for-the-session', Code.PROTOCOL_ERROR, windowUpdate(0, 0)],
  ['a-window-update-of-3-bytes', Code.FRAME_SIZE_ERROR, frame(WINDOW_UPDATE, 0, 0, byte(3))],
  ['a-session-window-that-overflows', Code.FLOW_CONTROL_ERROR, windowUpdate(0, 0x7fff_ffff), windowUpdate(0, 1)],
  [
    'settings-that-overflow-a-stream-s-window',
    Code.FLOW_CONTROL_ERROR,
    connectTo(1),
    windowUpdate(1, 0x7fff_ffff - 65_535),
    settings([4, 65_536]),
  ],
  // 6.10
  ['a-continuation-of-nothing', Code.PROTOCOL_ERROR, frame(CONTINUATION, END_HEADERS, 1, block(authority))],
  ['a-continuation-behind-the-end-of-headers', Code.PROTOCOL_ERROR, connectTo(1), frame(CONTINUATION, END_HEADERS, 1)],
  ['a-continuation-of-another-stream', Code.PROTOCOL_ERROR, frame(HEADERS, 0, 1, block(authority)), frame(CONTINUATION, END_HEADERS, 3)],
  ['a-continuation-on-stream-0', Code.PROTOCOL_ERROR, frame(HEADERS, 0, 1, block(authority)), frame(CONTINUATION, END_HEADERS, 0)],
  ['data-within-a-header-block', Code.PROTOCOL_ERROR, connectTo(1), frame(HEADERS, 0, 3, block(authority)), data(1, 'x')],
  ['a-ping-within-a-header-block', Code.PROTOCOL_ERROR, frame(HEADERS, 0, 1, block(authority)), ping()],
  ['an-unknown-frame-within-a-header-block', Code.PROTOCOL_ERROR, frame(HEADERS, 0, 1, block(authority)), frame(0x33, 0, 1, byte(3))],
  ['headers-within-a-header-block', Code.PROTOCOL_ERROR, frame(HEADERS, 0, 1, block(authority)), connectTo(3)],
  [
    'continuations-without-end',
    [Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR],
    frame(HEADERS, 0, 1, block(authority)),
    ...Array.from({ length: 1_000 }, () => frame(CONTINUATION, 0, 1)),
  ],
];

/** Resets stream 1 with one of these codes, and leaves the session as it was. */
export const streamErrors: readonly Case[] = [
  ['a-window-update-of-0', Code.PROTOCOL_ERROR, connectTo(1), windowUpdate(1, 0)],
  ['a-window-that-overflows', Code.FLOW_CONTROL_ERROR, connectTo(1), windowUpdate(1, 0x7fff_ffff)],
  ['headers-in-the-middle-that-do-not-end-it', Code.PROTOCOL_ERROR, connectTo(1), headers(1, [['x', 'y']])],
  ['pseudo-headers-in-its-trailers', Code.PROTOCOL_ERROR, connectTo(1), headers(1, authority, END_STREAM)],
  ['no-authority', Code.PROTOCOL_ERROR, headers(1, [[':method', 'CONNECT']])],
  ['no-method', Code.PROTOCOL_ERROR, headers(1, [[':authority', '127.0.0.1:80']])],
  ['a-path', Code.PROTOCOL_ERROR, headers(1, [...authority, [':path', '/']])],
  ['a-scheme', Code.PROTOCOL_ERROR, headers(1, [...authority, [':scheme', 'https']])],
  [
    'a-protocol-nobody-announced',
    Code.PROTOCOL_ERROR,
    headers(1, [...authority, [':protocol', 'websocket'], [':scheme', 'https'], [':path', '/']]),
  ],
  ['a-method-twice', Code.PROTOCOL_ERROR, headers(1, [[':method', 'CONNECT'], ...authority])],
  ['an-authority-twice', Code.PROTOCOL_ERROR, headers(1, [...authority, [':authority', '127.0.0.1:80']])],
  ['an-unknown-pseudo-header', Code.PROTOCOL_ERROR, headers(1, [...authority, [':x', 'y']])],
  ['a-status', Code.PROTOCOL_ERROR, headers(1, [...authority, [':status', '200']])],
  [
    'a-pseudo-header-behind-others',
    Code.PROTOCOL_ERROR,
    headers(1, [
      [':method', 'CONNECT'],
      ['x', 'y'],
      [':authority', '127.0.0.1:80'],
    ]),
  ],
  ['a-name-in-upper-case', Code.PROTOCOL_ERROR, headers(1, [...authority, ['X-Y', 'z']])],
  ['a-name-with-a-space', Code.PROTOCOL_ERROR, headers(1, [...authority, ['x y', 'z']])],
  ['an-empty-name', Code.PROTOCOL_ERROR, headers(1, [...authority, ['', 'z']])],
  ['a-value-with-a-line-break', Code.PROTOCOL_ERROR, headers(1, [...authority, ['x', 'a\r\nb: c']])],
  ['a-value-with-a-nul', Code.PROTOCOL_ERROR, headers(1, [...authority, ['x', 'a\0b']])],
  ['te-that-is-not-trailers', Code.PROTOCOL_ERROR, headers(1, [...authority, ['te', 'gzip']])],
  ...['connection', 'keep-alive', 'proxy-connection', 'transfer-encoding', 'upgrade'].map(
    (name): Case => [`a-${name}-header`, Code.PROTOCOL_ERROR, headers(1, [...authority, [name, 'x']])],
  ),
  [
    'a-get-without-a-path',
    Code.PROTOCOL_ERROR,
    headers(
      1,
      [
        [':method', 'GET'],
        [':scheme', 'https'],
      ],
      END_STREAM,
    ),
  ],
];

/** Changes nothing: a stream works afterwards. */
export const ignored: readonly (readonly [name: string, ...said: Buffer[]])[] = [
  ['unknown-frames', frame(0x33, 0xff, 0, byte(100)), frame(0x34, 0, 7, byte(3))],
  ['unknown-settings', settings([0x99, 0xffff_ffff])],
  ['a-reserved-bit', frame(PING, ACK, 0x8000_0000, byte(8))],
  ['flags-nobody-knows', frame(PING, 0xfe, 0, byte(8))],
  ['priorities', frame(PRIO, 0, 7, Buffer.from([0, 0, 0, 5, 1]))],
  ['the-answer-to-a-ping-nobody-sent', ping(ACK)],
  ['a-window-update-behind-a-reset', connectTo(1), reset(1), windowUpdate(1, 1)],
  ['data-behind-a-reset-of-ours', connectTo(1), windowUpdate(1, 0), data(1, 'on its way')],
  ['a-reset-behind-a-reset', connectTo(1), reset(1), reset(1)],
  ['empty-data', connectTo(1), data(1, ''), data(1, '')],
  ['a-new-table-size', frame(HEADERS, END_HEADERS, 1, Buffer.concat([Buffer.of(0x20), block(authority)]))],
];
