// The token provers that flags ask for, in one chain: each token is judged by the prover of its issuer, and by no other.

import { LOCAL_ISSUER, type TokenProver } from '../ca/local-token.ts';
import { OidcProver } from '../ca/oidc-prover.ts';
import { ProverChain } from '../ca/prover-chain.ts';
import { TokenReviewProver } from '../ca/token-review-prover.ts';
import { HandfastError } from '../errors.ts';
import type { FlagValues } from '../flags.ts';
import type { Log } from '../observe/log.ts';
import type { caFlags, proverFlags } from './shared-flags.ts';

type ProverConfig = FlagValues<typeof proverFlags & Pick<typeof caFlags, 'audience'>>;

/** Throws CONFIG_INVALID that names the flag. The local prover stays first: its tokens say whose they are. */
export function workloadProvers(config: ProverConfig, deps: { log: Log; now: () => number }): (local: TokenProver) => TokenProver {
  const { audience } = config;
  const issuer = config['oidc-issuer'];
  const jwksFile = config['oidc-jwks'];
  if (jwksFile !== undefined && issuer === undefined)
    throw new HandfastError('CONFIG_INVALID', '--oidc-jwks needs --oidc-issuer: whose keys they are');
  const oidc =
    issuer === undefined
      ? []
      : [{ issuer, prover: new OidcProver({ issuer, audience, ...(jwksFile === undefined ? {} : { jwksFile }), ...deps }) }];
  const server = config['token-review'];
  const review =
    server === undefined
      ? undefined
      : new TokenReviewProver({ server, caFile: config['token-review-ca'], tokenFile: config['token-review-token'], audience });
  return (local) => new ProverChain([{ issuer: LOCAL_ISSUER, prover: local }, ...oidc], review);
}
