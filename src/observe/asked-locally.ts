// Whether a connection to a port of ours came from the pod itself. The inbound listener hands over from 127.0.0.6: what comes from there was sent by somebody outside.

const PASSED_THROUGH = '127.0.0.6';

/** `address` as a socket has its remote one. */
export function askedLocally(address: string | undefined): boolean {
  const plain = (address ?? '').replace(/^::ffff:/, '');
  return plain === '::1' || (plain.startsWith('127.') && plain !== PASSED_THROUGH);
}
