// CIDR blocks, parsed once by ip-address, and sets of them that are asked by prefix: a policy may have ten thousand. IPv4-mapped addresses count as IPv4.

import { isIP } from 'node:net';
import { Address4, Address6 } from 'ip-address';
import { HandfastError } from '../errors.ts';
import { canonicalIp, ipFromBytes, ipToBytes } from './ip.ts';

/** `address` is canonical text, its host bits zero; `prefixLength` counts within its own family. */
export interface IpBlock {
  readonly address: string;
  readonly prefixLength: number;
  readonly bytes: Uint8Array;
}

/** `10.0.0.0/8`, `fd00::/8`, or one address. Throws CONFIG_INVALID for anything else; a block with host bits set counts as its network, as in Istio. */
export function parseIpBlock(text: string): IpBlock {
  const [address = '', length, ...rest] = text.split('/');
  const canonical = canonicalIp(address);
  const bits = canonical.includes(':') ? 128 : 32;
  // ::ffff:10.0.0.0/104 is 10.0.0.0/8.
  const mapped = address.includes(':') && bits === 32 ? 96 : 0;
  if (rest.length > 0 || (length !== undefined && !/^(0|[1-9][0-9]{0,2})$/.test(length))) throw notABlock(text);
  const prefixLength = length === undefined ? bits : Number(length) - mapped;
  if (prefixLength < 0 || prefixLength > bits) throw notABlock(text);
  return ipBlock(canonical, prefixLength);
}

/** Of an address's 4 or 16 bytes. Throws CONFIG_INVALID for another length, or a prefix that is longer than its address. */
export function ipBlockOf(bytes: Uint8Array, prefixLength: number): IpBlock {
  const address = ipFromBytes(bytes);
  const bits = address.includes(':') ? 128 : 32;
  if (prefixLength > bits) throw notABlock(`${address}/${prefixLength}`);
  return ipBlock(address, prefixLength);
}

/** An address to ask many sets about: 32 bits as a number, 128 as a bigint. */
export type IpBits = number | bigint;

/** `address` in canonical text. Throws CONFIG_INVALID for what is no address. */
export function ipBitsOf(address: string): IpBits {
  if (isIP(address) === 0) throw notABlock(address);
  return bitsOf(ipToBytes(address));
}

/** A look-up for each length that a prefix of the set has, whatever their number. */
export class IpBlockSet {
  readonly #v4 = new Map<number, Set<number>>();
  readonly #v6 = new Map<bigint, Set<bigint>>();

  constructor(blocks: readonly IpBlock[]) {
    for (const { bytes, prefixLength } of blocks) {
      const bits = bitsOf(bytes);
      if (typeof bits === 'number') add(this.#v4, 32 - prefixLength, prefix4(bits, 32 - prefixLength));
      else add(this.#v6, BigInt(128 - prefixLength), bits >> BigInt(128 - prefixLength));
    }
  }

  has(address: IpBits): boolean {
    if (typeof address === 'number') {
      for (const [hostBits, prefixes] of this.#v4) if (prefixes.has(prefix4(address, hostBits))) return true;
      return false;
    }
    for (const [hostBits, prefixes] of this.#v6) if (prefixes.has(address >> hostBits)) return true;
    return false;
  }
}

const sets = new WeakMap<readonly IpBlock[], IpBlockSet>();

/** Made once for each list of a policy. */
export function ipBlockSetOf(blocks: readonly IpBlock[]): IpBlockSet {
  let set = sets.get(blocks);
  if (set === undefined) {
    set = new IpBlockSet(blocks);
    sets.set(blocks, set);
  }
  return set;
}

/** A shift by 32 is one by 0. */
function prefix4(address: number, hostBits: number): number {
  return hostBits === 32 ? 0 : address >>> hostBits;
}

function add<T>(byLength: Map<T, Set<T>>, hostBits: T, prefix: T): void {
  const prefixes = byLength.get(hostBits);
  if (prefixes === undefined) byLength.set(hostBits, new Set([prefix]));
  else prefixes.add(prefix);
}

function bitsOf(bytes: Uint8Array): IpBits {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return bytes.length === 4 ? view.getUint32(0) : (view.getBigUint64(0) << 64n) | view.getBigUint64(8);
}

function ipBlock(canonical: string, prefixLength: number): IpBlock {
  const subnet = canonical.includes(':') ? new Address6(`${canonical}/${prefixLength}`) : new Address4(`${canonical}/${prefixLength}`);
  const address = canonicalIp(subnet.startAddress().correctForm());
  return Object.freeze({ address, prefixLength, bytes: ipToBytes(address) });
}

function notABlock(text: string): HandfastError {
  return new HandfastError('CONFIG_INVALID', `${JSON.stringify(text)} is not an IP address or CIDR block`);
}
