// Whose tokens count in a request: a rule of a RequestAuthentication, with the keys of its issuer.

/** `prefix` is cut off: `Bearer `, say. */
export interface TokenHeader {
  readonly name: string;
  readonly prefix: string;
}

/** A claim, by its path, that goes on to the application in a header of its own. */
export interface ClaimHeader {
  readonly header: string;
  readonly claim: readonly string[];
}

/** Header names are in lower case. Without any place of its own a token is looked for where Istio does: `Authorization: Bearer`, and the parameter `access_token`. */
export interface JwtRule {
  readonly issuer: string;
  /** One of them must be in a token; none: whatever it is for. */
  readonly audiences: readonly string[];
  /** A JSON Web Key Set. Empty: the keys have not been had yet, so that no token of this issuer is good. */
  readonly jwks: string;
  readonly fromHeaders: readonly TokenHeader[];
  readonly fromParams: readonly string[];
  readonly fromCookies: readonly string[];
  readonly outputPayloadToHeader: string | undefined;
  readonly outputClaims: readonly ClaimHeader[];
  /** The token goes on to the application. */
  readonly forwardOriginalToken: boolean;
  /** Such as `RequestAuthentication bar/jwt`. */
  readonly source: string;
}
