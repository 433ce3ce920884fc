// The sidecar's identity port put together: what it may answer, and whom it asks.

import { JwtSvidCache } from '../agent/jwt-svid-cache.ts';
import { CaClient } from '../ca/client.ts';
import type { SdsClientOptions } from '../discovery/sds-client.ts';
import { followJwtTrust } from '../identity-api/follow-jwt-trust.ts';
import { serveIdentity } from '../identity-api/identity-server.ts';
import type { Log } from '../observe/log.ts';
import { Snapshot } from '../snapshot.ts';
import type { JwtTrust } from '../spiffe/jwt-trust.ts';

export interface IdentityPortOptions extends Pick<SdsClientOptions, 'target' | 'nodeId'> {
  /** 0: there is none. */
  readonly port: number;
  readonly token: Snapshot<string>;
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
  try {
    const server = await serveIdentity({ port, signer, token: () => token.current, trust: () => trust.current, log, now });
    const following = followJwtTrust({ ...options, trust, signal: stopping.signal });
    return {
      port: server.port,
      close: async () => {
        await server.close();
        stopping.abort();
        await following;
        agent.close();
      },
    };
  } catch (error) {
    agent.close();
    throw error;
  }
}
