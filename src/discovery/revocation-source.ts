// The revocation list, on an SDS stream of its own: a bad one is refused and the last good one stays, and neither touches the rotation of keys.

import { messageOf } from '../errors.ts';
import type { Snapshot } from '../snapshot.ts';
import { parseRevocationList, type RevocationList } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { Secret } from '../wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import { readCrl, readEach } from './secret-reader.ts';
import type { DiscoveryLog } from './stream.ts';

export class RevocationSource {
  readonly #options: { name: string; revocations: Snapshot<RevocationList>; identity: Snapshot<Identity>; log: DiscoveryLog };
  /** The latest list, while no authority of ours vouches for its signer yet. */
  #waiting: string | undefined;

  /** `name` is the secret's. Lists are verified with the bundle of the identity in force, so the first one must have come. */
  constructor(options: { name: string; revocations: Snapshot<RevocationList>; identity: Snapshot<Identity>; log: DiscoveryLog }) {
    this.#options = options;
    options.identity.subscribe(() => this.#retry());
  }

  /** Takes one SDS response. Throws SECRET_INVALID or CRL_INVALID; the last good list stays in force then. */
  accept(secrets: readonly Secret[]): void {
    let text: string | undefined;
    readEach(secrets, {
      [this.#options.name]: (secret) => {
        text = readCrl(secret);
      },
    });
    if (text === undefined) return;
    try {
      this.#publish(text);
    } catch (error) {
      // Its signer may stand below a root that is on its way to us.
      this.#waiting = text;
      throw error;
    }
  }

  #retry(): void {
    if (this.#waiting === undefined) return;
    try {
      this.#publish(this.#waiting);
    } catch (error) {
      this.#options.log.warn({ reason: messageOf(error) }, 'revocation list still refused, the last good one stays in force');
    }
  }

  #publish(text: string): void {
    const { identity, revocations, log } = this.#options;
    if (identity.current === undefined) throw new Error('no trust bundle to verify the revocation list with yet');
    const list = parseRevocationList(text, identity.current.bundles.own);
    this.#waiting = undefined;
    log.info({ serials: list.serials.size, blockedIds: [...list.blockedIds] }, 'revocation list in force');
    revocations.replace(list);
  }
}
