// A process of the mesh's own (agent or control) with its ties to the CA: what it trusts, who it is, and how it reaches the others.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { runSdsClient, type SdsClientOptions } from '../discovery/sds-client.ts';
import { HandfastError, messageOf } from '../errors.ts';
import type { Log } from '../observe/log.ts';
import { Snapshot } from '../snapshot.ts';
import { noRevocations } from '../spiffe/crl.ts';
import type { Identity } from '../spiffe/identity.ts';
import { caId } from '../spiffe/system-ids.ts';
import type { TrustBundles } from '../spiffe/trust-bundle.ts';
import { type ExpectedServer, type GrpcTarget, isUnixAddress, tlsTarget, unixTarget } from '../wire/grpc-target.ts';
import { readKeptTrust, TrustKeeper } from './kept-trust.ts';
import { maintainNodeIdentity } from './node-identity.ts';
import { NodeTrustSource, trustSecretNames } from './node-trust-source.ts';

export const caKinds = ['handfast', 'istio'] as const;

export interface MeshNodeOptions {
  readonly trustDomain: string;
  /** gRPC address of the CA: `unix:/path`, or `host:port` by mutual TLS. */
  readonly ca: string;
  /** Istio's CA proves tokens as ours does, but knows nothing of nodes, revocations and JWT-SVIDs. */
  readonly caKind: (typeof caKinds)[number];
  /** Over the network: the roots to begin with, and for Istio's CA the DNS name it must have. */
  readonly trustBundleFile: string | undefined;
  readonly caServerName: string | undefined;
  /** Over the network: where the node's own key and certificate are kept, and the token it joins with. */
  readonly stateDir: string | undefined;
  readonly joinTokenFile: string | undefined;
  /** It is no node but a workload, alone in its pod: it joins nowhere, its token is enough for the CA, and who it is towards others comes from outside (`identity`). */
  readonly workloadToken?: Snapshot<string> | undefined;
  readonly log: Log;
  readonly now: () => number;
}

export class MeshNode {
  readonly trust: NodeTrustSource;
  readonly ca: GrpcTarget;
  readonly caKind: MeshNodeOptions['caKind'];
  /** The node's own certificate, or the workload's; stays empty on unix sockets and with Istio's CA. */
  readonly identity = new Snapshot<Identity>();
  readonly #options: MeshNodeOptions;
  readonly #stop = new AbortController();
  readonly #streams: Promise<void>[] = [];
  #keeper: TrustKeeper | undefined;

  private constructor(options: MeshNodeOptions) {
    this.#options = options;
    this.caKind = options.caKind;
    this.trust = new NodeTrustSource(options);
    const { ca, caKind, trustDomain, caServerName } = options;
    const expected = caKind === 'istio' ? { dnsName: caServerName ?? ca.replace(/:\d+$/, '') } : { spiffeIds: [caId(trustDomain).uri] };
    // By its token alone: a certificate that is revoked must not be what keeps a workload from having another.
    this.ca = this.#reach(ca, { expected, identity: () => (options.workloadToken === undefined ? this.#living() : undefined) });
  }

  /** Ready once the node has a certificate of its own (where it needs one). Throws CONFIG_INVALID, JOIN_TOKEN_REFUSED or STATE_INVALID with the way out. */
  static async start(options: MeshNodeOptions): Promise<MeshNode> {
    const node = new MeshNode(options);
    try {
      await node.#join();
      return node;
    } catch (error) {
      await node.stop();
      throw error;
    }
  }

  /** A server of the mesh: on a unix socket by its path, elsewhere by mutual TLS with the node's certificate. */
  reach(address: string, expected: ExpectedServer): GrpcTarget {
    return this.#reach(address, { expected, identity: () => this.#living() });
  }

  /** The same, as the workload that has this certificate. */
  reachAs(identity: () => Identity | undefined, address: string, expected: ExpectedServer): GrpcTarget {
    return this.#reach(address, { expected, identity });
  }

  #reach(address: string, { expected, identity }: { expected: ExpectedServer; identity: () => Identity | undefined }): GrpcTarget {
    if (isUnixAddress(address)) return unixTarget(address);
    return tlsTarget({
      address,
      identity,
      bundles: () => this.#bundles(address),
      revocations: () => this.trust.trust.current?.crl ?? noRevocations,
      expected,
      now: this.#options.now,
    });
  }

  /** Follows the CA's bundle, JWT keys and revocations. A new bundle is confirmed to the CA when `taken` resolves: when everybody on the node has it. */
  followTrust(taken: (signal: AbortSignal) => Promise<void>): void {
    if (this.caKind === 'istio') return;
    const { log } = this.#options;
    const { signal } = this.#stop;
    const common = { target: this.ca, nodeId: 'node', token: this.#options.workloadToken, log, signal };
    this.#streams.push(
      runSdsClient({
        ...common,
        resourceNames: trustSecretNames.bundle,
        accept: (secrets) => {
          this.trust.acceptTrust(secrets);
          return taken(signal);
        },
      }),
      this.#followWithBundle(common, { resourceNames: trustSecretNames.jwtKeys, accept: (secrets) => this.trust.acceptTrust(secrets) }),
      this.#followWithBundle(common, {
        resourceNames: trustSecretNames.revocations,
        accept: (secrets) => this.trust.acceptRevocations(secrets),
      }),
    );
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.all(this.#streams);
    await this.#keeper?.settled;
  }

  /** JWT keys are told with the bundle, and lists verified with it: so that comes first. */
  async #followWithBundle(
    common: Omit<SdsClientOptions, 'resourceNames' | 'accept'>,
    secrets: Pick<SdsClientOptions, 'resourceNames' | 'accept'>,
  ): Promise<void> {
    if ((await this.trust.trust.first(common.signal)) === undefined) return;
    await runSdsClient({ ...common, ...secrets });
  }

  async #join(): Promise<void> {
    const { ca, caKind, trustBundleFile, stateDir, joinTokenFile, log, now } = this.#options;
    if (trustBundleFile !== undefined) this.trust.useBundle(await readBundle(trustBundleFile));
    if (isUnixAddress(ca)) return;
    if (trustBundleFile === undefined)
      throw new HandfastError('CONFIG_INVALID', `--ca ${ca}: a CA over the network needs --trust-bundle FILE, the roots to begin with`);
    if (caKind === 'istio') return;
    if (stateDir === undefined)
      throw new HandfastError('CONFIG_INVALID', `--ca ${ca}: a CA over the network needs --state DIR for the node's own key`);
    await this.#restoreTrust(stateDir, trustBundleFile);
    if (this.#options.workloadToken !== undefined) return;
    await maintainNodeIdentity({
      path: join(stateDir, 'node.pem'),
      target: this.ca,
      identity: this.identity,
      trust: this.trust.trust,
      joinTokenFile,
      log,
      now,
      signal: this.#stop.signal,
    });
  }

  /** What was trusted last goes before an older file to begin with, and is kept up to date. */
  async #restoreTrust(stateDir: string, trustBundleFile: string): Promise<void> {
    const kept = await readKeptTrust(stateDir, trustBundleFile);
    try {
      if (kept.bundlePem !== undefined) this.trust.useBundle(kept.bundlePem);
    } catch (error) {
      this.#options.log.warn(
        { stateDir, reason: messageOf(error) },
        'the trust bundle on disk is not used, but the file of --trust-bundle',
      );
    }
    if (kept.crlPem !== undefined) this.trust.useRevocations(kept.crlPem);
    const keeper = new TrustKeeper({ stateDir, kept, log: this.#options.log });
    this.#keeper = keeper;
    const unsubscribe = this.trust.trust.subscribe((trust) => keeper.keep(trust));
    this.#stop.signal.addEventListener('abort', unsubscribe, { once: true });
  }

  /** An expired certificate is worse than none: with none a node may still join. */
  #living(): Identity | undefined {
    const { current } = this.identity;
    return current !== undefined && this.#options.now() <= current.svid.notAfter ? current : undefined;
  }

  #bundles(address: string): TrustBundles {
    const { current } = this.trust.trust;
    if (current === undefined) throw new HandfastError('UNAVAILABLE', `${address} cannot be verified: there is no trust bundle yet`);
    return current.bundles;
  }
}

async function readBundle(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause) => {
    throw new HandfastError('CONFIG_INVALID', `--trust-bundle: ${messageOf(cause)}`, { cause });
  });
}
