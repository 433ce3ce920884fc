// The token provers that flags ask for, in one chain: each token is judged by the prover of its issuer, and by no other.

import { LOCAL_ISSUER, type TokenProver } from '../ca/local-token.ts';
import { NODE_AUDIENCE, NodeAccounts } from '../ca/node-accounts.ts';
import { OidcProver } from '../ca/oidc-prover.ts';
import { ProverChain } from '../ca/prover-chain.ts';
import { parseServiceAccount, type ServiceAccount } from '../ca/service-account.ts';
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
  const review = reviewer(config, audience);
  return (local) => new ProverChain([{ issuer: LOCAL_ISSUER, prover: local }, ...oidc], review);
}

/** Throws CONFIG_INVALID that names the flag. Undefined where nodes have join tokens alone. */
export function nodeAccountsOf(config: ProverConfig, trustDomain: string): NodeAccounts | undefined {
  const { 'node-account': agent, 'control-account': control } = config;
  if (agent === undefined && control === undefined) return undefined;
  const prover = reviewer(config, NODE_AUDIENCE);
  if (prover === undefined)
    throw new HandfastError('CONFIG_INVALID', '--node-account and --control-account need --token-review: who proves their tokens');
  if (agent === undefined || control === undefined)
    throw new HandfastError('CONFIG_INVALID', '--node-account and --control-account go together: both join the same way');
  return new NodeAccounts({
    prover,
    trustDomain,
    agent: accountOf('--node-account', agent),
    control: accountOf('--control-account', control),
  });
}

function accountOf(flag: string, text: string): ServiceAccount {
  const account = parseServiceAccount(`system:serviceaccount:${text.replace('/', ':')}`);
  if (account === undefined)
    throw new HandfastError('CONFIG_INVALID', `${flag} ${JSON.stringify(text)} is not accepted: NAMESPACE/NAME of a service account`);
  return account;
}

function reviewer(config: ProverConfig, audience: string): TokenReviewProver | undefined {
  const server = config['token-review'];
  if (server === undefined) return undefined;
  return new TokenReviewProver({ server, caFile: config['token-review-ca'], tokenFile: config['token-review-token'], audience });
}
