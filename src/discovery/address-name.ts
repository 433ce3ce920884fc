// The names by which addresses are asked for, as Istio has them: network and IP, of which the network is empty here.

/** Of an address in canonical text: `/10.0.0.1`. */
export function addressName(address: string): string {
  return `/${address}`;
}

/** The address that a name stands for; undefined for any other name. */
export function addressOf(name: string): string | undefined {
  return name.startsWith('/') ? name.slice(1) : undefined;
}
