// The certificate authority: roots that sign intermediates only, an intermediate that signs leaves and CRLs, keys that sign JWTs, a ledger of
// everything that was issued. One process owns its state directory at a time.

import { messageOf } from '../errors.ts';
import type { Snapshot } from '../snapshot.ts';
import type { SpiffeId } from '../spiffe/spiffe-id.ts';
import { type AuthorityOptions, withLifetimes } from './authority-options.ts';
import { type AuthorityParts, closeParts, openParts } from './authority-parts.ts';
import type { IssuanceLedger } from './issuance-ledger.ts';
import { type SignedJwtSvid, signJwtSvid } from './jwt-svid-signer.ts';
import type { LedgerEntry } from './ledger-entry.ts';
import type { RevocationState } from './revocation-state.ts';
import type { RevocationTarget } from './revocation-target.ts';
import type { RevocationEffect, RevocationRequest } from './revocations.ts';
import type { RotationStage } from './rotation-state.ts';
import { type IssuedSvid, type IssueRequest, SvidIssuer } from './svid-issuer.ts';
import type { CaTrust } from './trust-publisher.ts';

export type { IssuedSvid, IssueRequest } from './svid-issuer.ts';

const MAINTAIN_EVERY_MS = 30_000;
/** The CA's own certificate, which it replaces by itself below a new root. */
export const OWN_PURPOSE = 'ca';

export class Authority {
  readonly trustDomain: string;
  readonly #options: ReturnType<typeof withLifetimes>;
  readonly #parts: AuthorityParts;
  readonly #issuer: SvidIssuer;
  readonly #timer: NodeJS.Timeout | undefined;
  /** The last of the changes to keys, stages and revocations: they go one at a time. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(options: ReturnType<typeof withLifetimes>, parts: AuthorityParts) {
    this.trustDomain = options.trustDomain;
    this.#options = options;
    this.#parts = parts;
    const beforeSigning = async () => {
      // The old intermediate signs on while it lives, should this fail; the next request tries again.
      if (parts.rotation.intermediateIsDue(options.now())) await this.#maintainQuietly();
    };
    this.#issuer = new SvidIssuer({ ...options, ...parts, beforeSigning });
    const every = options.maintainEveryMs ?? MAINTAIN_EVERY_MS;
    if (every > 0) this.#timer = setInterval(() => void this.#maintainQuietly(), every).unref();
  }

  /** Reads the CA from `dir`, or makes it there on first start. Throws STATE_INVALID for files that cannot be this CA's, or that another process uses. */
  static async open(options: AuthorityOptions): Promise<Authority> {
    const complete = withLifetimes(options);
    const authority = new Authority(complete, await openParts(complete));
    try {
      await authority.maintain();
      return authority;
    } catch (error) {
      await authority.close();
      throw error;
    }
  }

  /** What everybody verifies with; replaced on any change. Never without a value once the CA is open. */
  get trust(): Snapshot<CaTrust> {
    return this.#parts.publisher.trust;
  }

  /** Every current root in PEM. */
  get bundlePem(): string {
    return this.#parts.rotation.bundlePem;
  }

  /** For look-ups; entries are made by `issue` alone. */
  get ledger(): Pick<IssuanceLedger, 'bySerial' | 'bySpiffeId' | 'byKeyId' | 'byNode' | 'live' | 'size'> {
    return this.#parts.ledger;
  }

  /**
   * Signs a leaf for `id`, which the caller has proven; its entry is on disk before it is returned. Throws IDENTITY_BLOCKED, CSR_REFUSED (a
   * revoked key), RATE_LIMITED, IDENTITY_MISMATCH (another trust domain), or STATE_INVALID once the CA has expired or cannot write.
   */
  issue(request: IssueRequest): Promise<IssuedSvid> {
    return this.#issuer.issue(request);
  }

  /** A JWT-SVID; times in Unix seconds. Throws IDENTITY_BLOCKED, RATE_LIMITED, JWT_INVALID for impossible audiences. */
  async signJwtSvid(request: { id: SpiffeId; audience: readonly string[]; node?: string }): Promise<SignedJwtSvid> {
    const { jwtKeys, jwtLimit, revocations } = this.#parts;
    jwtLimit.take({ spiffeId: request.id.uri, node: request.node ?? '', what: 'JWT-SVIDs' });
    const { jwtTtlMs: ttlMs, jwtIssuer: issuer, now } = this.#options;
    const signed = await signJwtSvid({ ...request, ttlMs, issuer, key: jwtKeys.signing, now: now() });
    revocations.refuseBlocked(request.id.uri);
    return signed;
  }

  /** Withdraws a JWT key at once; its tokens verify nowhere once the new key set has arrived. Throws CONFIG_INVALID for an unknown one. */
  withdrawJwtKey(kid: string): Promise<void> {
    return this.#change(() => this.#parts.jwtKeys.withdraw(kid));
  }

  get revocations(): RevocationState {
    return this.#parts.revocations.state;
  }

  /** Exactly what `revoke` would add, with nothing done. */
  preview(request: Pick<RevocationRequest, 'target' | 'forceExpiresAt'>): RevocationEffect {
    return this.#parts.revocations.preview(request);
  }

  revoke(request: RevocationRequest): Promise<RevocationEffect> {
    return this.#change(() => this.#parts.revocations.revoke(request));
  }

  /** Lets a SPIFFE ID or a key have certificates again. False when it was not blocked. */
  lift(target: RevocationTarget): Promise<boolean> {
    return this.#change(() => this.#parts.revocations.lift(target));
  }

  /** Where the root rotation stands. `liveBelowOld` certificates would end if the old root were withdrawn now. */
  get rotation(): { readonly stage: RotationStage; readonly rootKeyIds: readonly string[]; readonly liveBelowOld: number } {
    const { rotation } = this.#parts;
    const { oldRoot } = rotation;
    const unrevoked = oldRoot === undefined ? [] : this.#unrevoked();
    // A node has one certificate at a time: once it has another, the old one is nobody's. The CA replaces its own by itself.
    const renewed = new Set(
      unrevoked.flatMap(({ purpose, node, rootKeyId }) => (purpose === 'node' && rootKeyId !== oldRoot?.keyId ? [node] : [])),
    );
    const counts = ({ purpose, node }: LedgerEntry) => purpose !== OWN_PURPOSE && !(purpose === 'node' && renewed.has(node));
    const liveBelowOld = unrevoked.filter((entry) => entry.rootKeyId === oldRoot?.keyId && counts(entry)).length;
    return { stage: rotation.stage, rootKeyIds: rotation.roots.map(({ keyId }) => keyId), liveBelowOld };
  }

  /** Nodes that have a certificate, their own or a workload's, which is neither expired nor revoked. */
  get liveNodes(): ReadonlySet<string> {
    const ofNodes = this.#unrevoked().filter(({ purpose, node }) => node !== '' && (purpose === 'node' || purpose === 'workload'));
    return new Set(ofNodes.map(({ node }) => node));
  }

  /** The stages of a root rotation (root-rotation.ts). Each throws STAGE_REFUSED when it is not its turn, and does nothing when it is done already. */
  prepareRoot(): Promise<void> {
    return this.#change(() => this.#parts.rotation.prepare());
  }

  activateRoot(options: { behind: readonly string[]; force?: boolean }): Promise<void> {
    return this.#change(() => this.#parts.rotation.activate(options));
  }

  retireRoot({ force = false }: { force?: boolean } = {}): Promise<void> {
    return this.#change(() => this.#parts.rotation.retire({ liveBelowOld: this.rotation.liveBelowOld, force }));
  }

  abortRoot(): Promise<void> {
    return this.#change(() => this.#parts.rotation.abort());
  }

  /** Renews what is due: the intermediate, JWT keys, the CRL. Called by itself on a timer; rejects when something could not be renewed. */
  maintain(): Promise<void> {
    return this.#change(async () => {
      const { rotation, jwtKeys } = this.#parts;
      await rotation.renewIntermediate(this.#options.now()).catch((error) => {
        this.#options.log?.error({ reason: messageOf(error) }, 'intermediate not renewed');
      });
      await jwtKeys.rotate();
    });
  }

  /** Waits for changes under way and lets another process have the directory. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#last.catch(() => undefined);
    await closeParts(this.#parts);
  }

  #unrevoked(): LedgerEntry[] {
    const { certificates } = this.revocations;
    return this.#parts.ledger.live().filter(({ serial }) => !certificates.has(serial));
  }

  /** One change after the other, and each is published before its caller hears of it. */
  #change<T>(make: () => Promise<T>): Promise<T> {
    const done = this.#last
      .catch(() => undefined)
      .then(async () => {
        const result = await make();
        await this.#parts.publisher.refresh();
        return result;
      });
    this.#last = done;
    return done;
  }

  async #maintainQuietly(): Promise<void> {
    await this.maintain().catch((error) => this.#options.log?.error({ reason: messageOf(error) }, 'CA not maintained'));
  }
}
