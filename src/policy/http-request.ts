// What is known of an HTTP request when it is judged.

/** A token that was verified: by a RequestAuthentication's rule. */
export interface RequestAuth {
  /** `iss/sub`. */
  readonly principal: string;
  readonly audiences: readonly string[];
  /** The claim `azp`, or empty. */
  readonly presenter: string;
  readonly claims: Readonly<Record<string, unknown>>;
}

export interface HttpRequestFacts {
  readonly method: string;
  /** Every reading of the path, without the query; at least one. The first is what the application gets. */
  readonly paths: readonly string[];
  /** The Host header, or the authority of an absolute target, as it was sent; empty where there was none. */
  readonly host: string;
  /** All values of a header, by its name in lower case, one for each time it stands there. */
  readonly header: (name: string) => readonly string[];
  /** The same of all names that many applications take for it: they make `_` of `-`. */
  readonly alike: (name: string) => readonly string[];
  /** Undefined without a token. */
  readonly auth: RequestAuth | undefined;
}
