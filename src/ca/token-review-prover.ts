// Tokens that a Kubernetes API server is asked about (authentication.k8s.io/v1 TokenReview): it knows of pods that have ended, too.

import { readFile } from 'node:fs/promises';
import { HandfastError, messageOf } from '../errors.ts';
import { isJsonObject, parseStrictObject } from '../spiffe/strict-json.ts';
import { type TurnLimits, Turns } from '../turns.ts';
import { boundedRequest } from '../wire/bounded-request.ts';
import type { ProvenWorkload, TokenProver } from './local-token.ts';
import { parseServiceAccount } from './service-account.ts';

const PATH = '/apis/authentication.k8s.io/v1/tokenreviews';
const TIMEOUT_MS = 5000;
const MAX_ANSWER_BYTES = 262_144;
const MAX_TOKEN_BYTES = 16_384;
/** An API server is everybody's; and whoever waits longer than this has given up. */
const REVIEWS: TurnLimits = { atOnce: 8, waiting: 1_000, waitMs: 8_000 };
const POD_NAME = 'authentication.kubernetes.io/pod-name';
const POD_UID = 'authentication.kubernetes.io/pod-uid';
const NODE_NAME = 'authentication.kubernetes.io/node-name';

export interface TokenReviewOptions {
  /** `https://host:port` of the API server. */
  readonly server: string;
  /** PEM file of the authorities of its certificate; read again for every review, as the next one is. */
  readonly caFile: string;
  /** File with the bearer token that lets us ask: it needs the role system:auth-delegator. */
  readonly tokenFile: string;
  readonly audience: string;
  readonly timeoutMs?: number;
  readonly reviews?: TurnLimits;
}

export class TokenReviewProver implements TokenProver {
  readonly #options: TokenReviewOptions;
  readonly #url: URL;
  readonly #turns: Turns;

  /** Throws CONFIG_INVALID for a server that is not asked over https. */
  constructor(options: TokenReviewOptions) {
    const url = URL.canParse(PATH, options.server) ? new URL(PATH, options.server) : undefined;
    if (url?.protocol !== 'https:')
      throw new HandfastError('CONFIG_INVALID', `Kubernetes API server ${JSON.stringify(options.server)}: an https URL is needed`);
    if (options.audience === '') throw new HandfastError('CONFIG_INVALID', 'TokenReview: an audience is needed');
    this.#options = options;
    this.#url = url;
    this.#turns = new Turns('TokenReview', options.reviews ?? REVIEWS);
  }

  async prove(token: string): Promise<ProvenWorkload> {
    if (token === '' || token.length > MAX_TOKEN_BYTES) throw refused('no token, or an absurdly long one');
    const { audience } = this.#options;
    const status = await this.#turns.run(() => this.#review(token));
    if (status.authenticated !== true) throw refused(`the API server says: ${text(status.error) ?? 'not authenticated'}`);
    // An API server that does not know audiences answers without them, and then the token was for anybody.
    if (!Array.isArray(status.audiences) || !status.audiences.includes(audience))
      throw refused(`the API server answers for audiences ${JSON.stringify(status.audiences)}, without ${audience}`);
    const user = isJsonObject(status.user) ? status.user : {};
    const proven = parseServiceAccount(user.username);
    if (proven === undefined) throw refused(`user ${JSON.stringify(user.username)} is no service account`);
    const extra = isJsonObject(user.extra) ? user.extra : {};
    // Bound to no pod, it outlives every pod, and who made it may be anybody with a right to make tokens.
    if (only(extra[POD_UID]) === undefined) throw refused('it is bound to no pod');
    const [podName, podUid, nodeName] = [only(extra[POD_NAME]), only(extra[POD_UID]), only(extra[NODE_NAME])];
    return {
      ...proven,
      ...(podName === undefined ? {} : { podName }),
      ...(podUid === undefined ? {} : { podUid }),
      ...(nodeName === undefined ? {} : { nodeName }),
    };
  }

  /** The answer's `status`. Throws UNAVAILABLE: whoever could not ask must not turn anybody away for good. */
  async #review(token: string): Promise<Readonly<Record<string, unknown>>> {
    const { audience, caFile, tokenFile, timeoutMs = TIMEOUT_MS } = this.#options;
    const [ca, own] = [await readText(caFile), (await readText(tokenFile)).trim()];
    if (!/^[\x21-\x7e]+$/.test(own)) throw new HandfastError('UNAVAILABLE', `${tokenFile} holds no bearer token`);
    const review = { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', spec: { token, audiences: [audience] } };
    const answer = await boundedRequest(this.#url, {
      method: 'POST',
      headers: { authorization: `Bearer ${own}`, 'content-type': 'application/json' },
      body: JSON.stringify(review),
      ca,
      timeoutMs,
      maxBytes: MAX_ANSWER_BYTES,
    });
    if (answer.status === 401 || answer.status === 403) {
      throw new HandfastError(
        'UNAVAILABLE',
        `the API server does not let us review tokens (${answer.status}): bind ${tokenFile}'s account to the ClusterRole system:auth-delegator`,
      );
    }
    if (answer.status !== 200 && answer.status !== 201)
      throw new HandfastError('UNAVAILABLE', `the API server answered a TokenReview with ${answer.status}`);
    return statusOf(answer.text);
  }
}

function statusOf(answer: string): Readonly<Record<string, unknown>> {
  try {
    const { kind, status } = parseStrictObject(answer);
    if (kind === 'TokenReview' && isJsonObject(status)) return status;
    throw new Error('not a TokenReview with a status');
  } catch (cause) {
    throw new HandfastError('UNAVAILABLE', `the API server's answer cannot be read: ${messageOf(cause)}`, { cause });
  }
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw new HandfastError('UNAVAILABLE', `cannot read ${path}: ${messageOf(cause)}`, { cause });
  }
}

/** Extra values are lists; these have one entry. */
function only(value: unknown): string | undefined {
  return Array.isArray(value) && value.length === 1 ? text(value[0]) : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value.slice(0, 500) : undefined;
}

function refused(reason: string): HandfastError {
  return new HandfastError('TOKEN_REFUSED', `token refused: ${reason}`);
}
