// Names to addresses for URLs that somebody wrote into a policy: never to what only this machine, or the cloud it runs in, has at such an address.

import { type LookupAddress, lookup } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';

const inward = new BlockList();
inward.addSubnet('0.0.0.0', 8, 'ipv4');
inward.addSubnet('127.0.0.0', 8, 'ipv4');
// Cloud metadata.
inward.addSubnet('169.254.0.0', 16, 'ipv4');
inward.addSubnet('192.0.0.0', 24, 'ipv4');
inward.addAddress('100.100.100.200', 'ipv4');
inward.addSubnet('224.0.0.0', 3, 'ipv4');
// IPv4 in IPv6: compatible addresses (with `::` and `::1`), and NAT64.
inward.addSubnet('::', 96, 'ipv6');
inward.addSubnet('64:ff9b::', 96, 'ipv6');
inward.addSubnet('fe80::', 10, 'ipv6');
inward.addSubnet('ff00::', 8, 'ipv6');
inward.addAddress('fd00:ec2::254', 'ipv6');

/** Also of an IPv4 address that is written as IPv6. */
export function isInward({ address, family }: LookupAddress): boolean {
  return inward.check(address, family === 6 ? 'ipv6' : 'ipv4');
}

/** Why a URL whose host is an address may not be asked: such are never looked up. */
export function inwardUrl(url: URL): string | undefined {
  const address = url.hostname.replace(/^\[|\]$/g, '');
  const family = isIP(address);
  return family !== 0 && isInward({ address, family }) ? `${url.href}: this address may not be asked` : undefined;
}

export const outwardLookup: LookupFunction = (hostname, options, done) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    const bad = addresses?.find(isInward);
    if (error !== null) done(error, []);
    else if (bad !== undefined)
      done(Object.assign(new Error(`${hostname} is at ${bad.address}, which may not be asked`), { code: 'EACCES' }), []);
    else if (options.all === true) done(null, addresses);
    else done(null, addresses[0]?.address ?? '', addresses[0]?.family);
  });
};
