// Several issuers, one prover each: the token says whose it is, and that prover alone decides.

import { HandfastError, messageOf } from '../errors.ts';
import { readJws } from '../spiffe/jwt.ts';
import type { ProvenWorkload, TokenProver } from './local-token.ts';

export class ProverChain implements TokenProver {
  readonly #byIssuer: ReadonlyMap<string, TokenProver>;
  readonly #otherwise: TokenProver | undefined;

  /** `otherwise` is asked about issuers that are not listed. Throws CONFIG_INVALID for an issuer with two provers. */
  constructor(provers: readonly { readonly issuer: string; readonly prover: TokenProver }[], otherwise?: TokenProver) {
    this.#byIssuer = new Map(provers.map(({ issuer, prover }) => [issuer, prover]));
    this.#otherwise = otherwise;
    if (this.#byIssuer.size !== provers.length) throw new HandfastError('CONFIG_INVALID', 'two token provers have one issuer');
  }

  /** A refusal is final: what one issuer's prover will not have must not get a second chance with another's. */
  async prove(token: string): Promise<ProvenWorkload> {
    const issuer = issuerOf(token);
    const prover = this.#byIssuer.get(issuer) ?? this.#otherwise;
    if (prover === undefined) {
      const known = [...this.#byIssuer.keys()].join(', ');
      throw new HandfastError('TOKEN_REFUSED', `token refused: issuer ${JSON.stringify(issuer.slice(0, 200))} is none of ${known}`);
    }
    return prover.prove(token);
  }
}

/** What the token claims; the prover chosen by it verifies that. */
function issuerOf(token: string): string {
  let issuer: unknown;
  try {
    issuer = readJws(token).claims.iss;
  } catch (cause) {
    throw new HandfastError('TOKEN_REFUSED', `token refused: ${messageOf(cause)}`, { cause });
  }
  if (typeof issuer !== 'string') throw new HandfastError('TOKEN_REFUSED', 'token refused: it names no issuer (iss)');
  return issuer;
}
