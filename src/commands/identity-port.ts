// The sidecar's identity port put together: what it may answer, and whom it asks. Secrets are served by it, too.

import { JwtSvidCache } from '../agent/jwt-svid-cache.ts';
import { CaClient } from '../ca/client.ts';
import { ReceiptBook } from '../discovery/receipt-book.ts';
import { runReceiptClient } from '../discovery/receipt-client.ts';
import type { SdsClientOptions } from '../discovery/sds-client.ts';
import { SecretSubscription } from '../discovery/secret-subscription.ts';
import { followJwtTrust } from '../identity-api/follow-jwt-trust.ts';
import { HeldSecrets } from '../identity-api/held-secrets.ts';
import { serveIdentity } from '../identity-api/identity-server.ts';
import { SecretRequests } from '../identity-api/secret-requests.ts';
import type { Log } from '../observe/log.ts';
import { Snapshot } from '../snapshot.ts';
import type { Identity } from '../spiffe/identity.ts';
import type { JwtTrust } from '../spiffe/jwt-trust.ts';

export interface IdentityPortOptions extends Pick<SdsClientOptions, 'target' | 'nodeId'> {
  /** 0: there is none. */
  readonly port: number;
  readonly token: Snapshot<string>;
  /** Without it no secrets are served. */
  readonly secrets?: {
    /** `namespace/name`, of this sidecar's. */
    readonly pod: string;
    /** Its certificate: secrets are served no longer than that lives. */
    readonly identity: Snapshot<Identity>;
    /** Those that are asked for before the application asks. */
    readonly preload: readonly string[];
  };
  readonly log: Log;
  readonly now: () => number;
}

/** Undefined where it is switched off. Throws CONFIG_INVALID for a port in use. */
export async function openIdentityPort(options: IdentityPortOptions): Promise<{ port: number; close(): Promise<void> } | undefined> {
  const { port, token, log, now, target } = options;
  if (port === 0) return undefined;
  const trust = new Snapshot<JwtTrust>();
  // The agent asks the CA in our name; it speaks as the CA does.
  const agent = new CaClient(target);
  const stopping = new AbortController();
  const signer = new JwtSvidCache({ signer: agent, trust: () => trust.current, now });
  const secrets = options.secrets === undefined ? undefined : openSecrets(options, options.secrets, stopping.signal);
  try {
    const server = await serveIdentity({
      port,
      signer,
      token: () => token.current,
      trust: () => trust.current,
      secrets: secrets?.requests,
      log,
      now,
    });
    const following = followJwtTrust({ ...options, trust, signal: stopping.signal });
    return {
      port: server.port,
      close: async () => {
        secrets?.close();
        await server.close();
        stopping.abort();
        await Promise.all([following, secrets?.ended()]);
        agent.close();
      },
    };
  } catch (error) {
    stopping.abort();
    agent.close();
    throw error;
  }
}

/** Asked of the agent, kept here, and reported on. */
function openSecrets(
  options: IdentityPortOptions,
  { pod, identity, preload }: NonNullable<IdentityPortOptions['secrets']>,
  signal: AbortSignal,
): { requests: SecretRequests; close(): void; ended(): Promise<unknown> } {
  const { target, now } = options;
  const feed = new SecretSubscription({ ...options, target: () => target, signal });
  const receipts = new ReceiptBook();
  const isCurrent = () => now() <= (identity.current?.svid.notAfter ?? 0);
  const held = new HeldSecrets({ feed, receipts, instance: { reporter: '', pod }, preload, isCurrent, now });
  const reporting = runReceiptClient({ ...options, receipts, signal });
  return {
    requests: new SecretRequests({ secrets: () => Promise.resolve(held) }),
    close: () => held.close(),
    ended: () => Promise.all([reporting, feed.ended()]),
  };
}
