// A capture file read back: how many packets, and whether what applications said can be read in it.

/** One direction of one TCP connection, payload in order of arrival. */
interface Flow {
  readonly port: number;
  readonly bytes: Buffer;
}

export interface Wire {
  readonly packets: number;
  readonly flows: number;
  /** Where their connections go to: the lower port of each. */
  readonly ports: readonly number[];
  /** Flows that carry the marker, or anything else than TLS records. */
  readonly plaintextFlows: number;
  readonly markers: number;
}

const PCAP_HEADER = 24;
const PACKET_HEADER = 16;
const ETHERNET_HEADER = 14;

/** Reads a pcap of Ethernet frames (little-endian, as tcpdump writes it here). */
export function readWire(pcap: Buffer, marker: string): Wire {
  const { packets, flows } = readFlows(pcap);
  const markers = flows.reduce((sum, flow) => sum + occurrences(flow.bytes, marker), 0);
  const plaintextFlows = flows.filter((flow) => occurrences(flow.bytes, marker) > 0 || !isTls(flow.bytes)).length;
  const ports = [...new Set(flows.map(({ port }) => port))];
  return { packets, flows: flows.length, ports, plaintextFlows, markers };
}

function readFlows(pcap: Buffer): { packets: number; flows: Flow[] } {
  if (pcap.length < PCAP_HEADER || pcap.readUInt32LE(0) !== 0xa1b2c3d4) throw new Error('not a capture file of tcpdump');
  const segments = new Map<string, { port: number; pieces: Map<number, Buffer> }>();
  let packets = 0;
  for (let offset = PCAP_HEADER; offset + PACKET_HEADER <= pcap.length; ) {
    const length = pcap.readUInt32LE(offset + 8);
    const frame = pcap.subarray(offset + PACKET_HEADER, offset + PACKET_HEADER + length);
    offset += PACKET_HEADER + length;
    packets++;
    const segment = readSegment(frame);
    if (segment === undefined || segment.payload.length === 0) continue;
    const flow = segments.get(segment.flow) ?? { port: segment.port, pieces: new Map<number, Buffer>() };
    // A retransmission carries the same sequence number: it is one piece of the stream, not two.
    flow.pieces.set(segment.sequence, segment.payload);
    segments.set(segment.flow, flow);
  }
  return {
    packets,
    flows: [...segments.values()].map(({ port, pieces }) => ({
      port,
      bytes: Buffer.concat([...pieces].sort(bySequence).map(([, bytes]) => bytes)),
    })),
  };
}

/** In sequence order; a stream that wraps at 2^32 within a demo's few kilobytes is sorted by distance from its first piece. */
function bySequence([a]: [number, Buffer], [b]: [number, Buffer]): number {
  return (a - b) | 0;
}

function readSegment(frame: Buffer): { flow: string; port: number; sequence: number; payload: Buffer } | undefined {
  if (frame.length < ETHERNET_HEADER + 40) return undefined;
  const type = frame.readUInt16BE(12);
  const ip = frame.subarray(ETHERNET_HEADER);
  const v4 = type === 0x0800;
  if (!v4 && type !== 0x86dd) return undefined;
  const protocol = v4 ? ip[9] : ip[6];
  if (protocol !== 6) return undefined;
  const headerLength = v4 ? ((ip[0] ?? 0) & 0x0f) * 4 : 40;
  const total = v4 ? ip.readUInt16BE(2) : 40 + ip.readUInt16BE(4);
  const tcp = ip.subarray(headerLength, total);
  const dataOffset = ((tcp[12] ?? 0) >> 4) * 4;
  const addresses = v4 ? ip.subarray(12, 20) : ip.subarray(8, 40);
  return {
    flow: `${addresses.toString('hex')} ${tcp.subarray(0, 4).toString('hex')}`,
    port: Math.min(tcp.readUInt16BE(0), tcp.readUInt16BE(2)),
    sequence: tcp.readUInt32BE(4),
    payload: tcp.subarray(dataOffset),
  };
}

/** Whether the stream is a sequence of TLS records (RFC 8446, 5.1) from the first byte that was captured on; the last may be cut by the end of the capture. */
function isTls(stream: Buffer): boolean {
  for (let offset = 0; offset + 5 <= stream.length; ) {
    const type = stream[offset] ?? 0;
    if (type < 0x14 || type > 0x17 || stream[offset + 1] !== 0x03) return false;
    offset += 5 + stream.readUInt16BE(offset + 3);
  }
  return true;
}

function occurrences(bytes: Buffer, marker: string): number {
  let count = 0;
  for (let at = bytes.indexOf(marker); at >= 0; at = bytes.indexOf(marker, at + 1)) count++;
  return count;
}
