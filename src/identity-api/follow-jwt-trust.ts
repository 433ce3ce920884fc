// What the agent verifies JWT-SVIDs with, followed by SDS: replaced whole, and the last one stays while the agent is away.

import { secretNames } from '../discovery/identity-source.ts';
import { runSdsClient, type SdsClientOptions } from '../discovery/sds-client.ts';
import { readEach, readGeneric } from '../discovery/secret-reader.ts';
import type { Snapshot } from '../snapshot.ts';
import { type JwtTrust, parseJwtTrust } from '../spiffe/jwt-trust.ts';

/** Runs until the signal aborts. */
export function followJwtTrust(options: Omit<SdsClientOptions, 'resourceNames' | 'accept'> & { trust: Snapshot<JwtTrust> }): Promise<void> {
  return runSdsClient({
    ...options,
    resourceNames: [secretNames.jwtTrust],
    accept: (secrets) => {
      readEach(secrets, { [secretNames.jwtTrust]: (secret) => options.trust.replace(parseJwtTrust(readGeneric(secret))) });
    },
  });
}
