// What requests for secrets are answered with, once nothing speaks against looking at them: what is there for this application, what has changed, and its word that it uses a version.

import type { IncomingMessage } from 'node:http';
import type { HeldSecret } from '../discovery/secret-feed.ts';
import { HandfastError } from '../errors.ts';
import { isSecretKey, isSecretMember, isSecretVersion } from '../policy/secret-name.ts';
import { type MonotonicClock, TokenBucket } from '../rate-limit.ts';
import type { HeldSecrets } from './held-secrets.ts';
import { type Reply, refused, tooOften, unavailable } from './reply.ts';
import { invalid, readBody } from './request-body.ts';

export const SECRET_PATHS = '/v1/secrets/NAMESPACE/NAME[/data/VALUE][/receipt]';

export interface SecretRequestsOptions {
  /** Undefined while it is not known whose secrets they are. */
  readonly secrets: () => Promise<HeldSecrets | undefined>;
  readonly clock?: MonotonicClock;
}

interface Asked {
  readonly key: string;
  readonly rest: readonly string[];
  readonly query: URLSearchParams;
}

/** Of the whole pod. */
const RATE = { burst: 500, perSecond: 200 };
/** For the first word of a secret: after that it is held. */
const FIRST_WAIT_MS = 5_000;
/** Below the time after which a connection without a word is ended. */
const MAX_WAIT_S = 25;
/** To whoever may not have it and to whoever asks for what there is not: nobody learns which of the two it is. */
const NONE = refused(404, 'NO_SUCH_SECRET', 'there is no such secret for this workload');

export function isAboutSecrets(url: string | undefined): boolean {
  return url?.startsWith('/v1/secrets/') === true;
}

export class SecretRequests {
  readonly #options: SecretRequestsOptions;
  readonly #requests: TokenBucket;

  constructor(options: SecretRequestsOptions) {
    this.#options = options;
    this.#requests = new TokenBucket(RATE, options.clock);
  }

  /** Rejects when whoever asked has gone. */
  async answer(request: IncomingMessage): Promise<Reply> {
    const waitMs = this.#requests.take();
    if (waitMs > 0) return tooOften(waitMs);
    const asked = askedOf(request.url ?? '');
    if (asked === undefined) return invalid(`the path is ${SECRET_PATHS}, names as they are`);
    const secrets = await this.#options.secrets();
    if (secrets === undefined) return unavailable('it is not known yet whose secrets these are');
    if (!secrets.isCurrent) return ended();
    try {
      const [what, member, ...more] = asked.rest;
      if (what === 'receipt' && member === undefined) return await confirm(request, asked, secrets);
      if (request.method !== 'GET') return refused(405, 'METHOD_REFUSED', 'only GET', { allow: 'GET' });
      if (what === undefined) return await whole(asked, secrets);
      if (what === 'data' && member !== undefined && more.length === 0 && isSecretMember(member))
        return await value(asked, { secrets, member });
      return invalid(`the path is ${SECRET_PATHS}, names as they are`);
    } catch (error) {
      if (error instanceof HandfastError && error.code === 'RATE_LIMITED')
        return refused(429, 'TOO_MANY_SECRETS', error.message, { 'retry-after': '1' });
      if (error instanceof HandfastError && error.code === 'NO_IDENTITY') return ended();
      throw error;
    }
  }
}

async function whole({ key, query }: Asked, secrets: HeldSecrets): Promise<Reply> {
  const [after, wait, version] = [query.get('after'), query.get('wait'), query.get('version')];
  const stranger = [...query.keys()].find((name) => !['after', 'wait', 'version'].includes(name));
  if (stranger !== undefined || (after !== null && version !== null) || (wait !== null && after === null))
    return invalid('accepted are version=VERSION, or after=VERSION with wait=SECONDS');
  if (after === null) return found(await heldOf(key, secrets), { version, secrets, reply: asJson });
  const seconds = wait === null ? MAX_WAIT_S : /^\d{1,2}$/.test(wait) ? Number(wait) : Number.NaN;
  if (!(seconds <= MAX_WAIT_S) || !isSecretVersion(after)) return invalid(`after is a version, and wait 0 to ${MAX_WAIT_S} seconds`);
  if ((await heldOf(key, secrets)) === undefined) return noWord();
  const answer = await answered(key, secrets, {
    waitMs: seconds * 1_000,
    isEnough: (now) => typeof now !== 'object' || now.secret.current !== after,
  });
  if (typeof answer === 'object' && answer.secret.current === after) return { status: 204, body: undefined };
  return found(answer, { version: null, secrets, reply: asJson });
}

async function value({ key, query }: Asked, { secrets, member }: { secrets: HeldSecrets; member: string }): Promise<Reply> {
  if ([...query.keys()].some((name) => name !== 'version')) return invalid('accepted is version=VERSION');
  return found(await heldOf(key, secrets), {
    version: query.get('version'),
    secrets,
    reply: ({ secret }, version) => {
      const bytes = secret.versions.get(version)?.get(member);
      // A copy: ours is wiped when it is replaced, and this one may still be on its way.
      return bytes === undefined ? NONE : { status: 200, body: Buffer.from(bytes), headers: { 'handfast-secret-version': version } };
    },
  });
}

async function confirm(request: IncomingMessage, { key, query }: Asked, secrets: HeldSecrets): Promise<Reply> {
  if (request.method !== 'POST') return refused(405, 'METHOD_REFUSED', 'only POST', { allow: 'POST' });
  if (query.size > 0) return invalid('a receipt is {"version": VERSION}');
  const read = await readBody(request, ['version']);
  if ('reply' in read) return read.reply;
  const { version } = read.body;
  if (typeof version !== 'string' || !isSecretVersion(version)) return invalid('a receipt is {"version": VERSION}');
  const answer = await heldOf(key, secrets);
  if (answer === undefined) return noWord();
  if (answer === 'none') return NONE;
  if (!answer.secret.versions.has(version)) return refused(409, 'NO_SUCH_VERSION', 'this version is not there, or not any more');
  secrets.used(key, { version, as: 'confirmed' });
  return { status: 204, body: undefined };
}

function heldOf(key: string, secrets: HeldSecrets) {
  return answered(key, secrets, { waitMs: FIRST_WAIT_MS });
}

/** Throws NO_IDENTITY when our certificate has ended while it was waited for. */
async function answered(key: string, secrets: HeldSecrets, wait: Parameters<HeldSecrets['answer']>[1]) {
  const answer = await secrets.answer(key, wait);
  if (!secrets.isCurrent) throw new HandfastError('NO_IDENTITY', 'our own certificate has ended');
  return answer;
}

function ended(): Reply {
  return unavailable('our own certificate has ended, and with it the right to these secrets');
}

function found(
  answer: Awaited<ReturnType<typeof heldOf>>,
  { version, secrets, reply }: { version: string | null; secrets: HeldSecrets; reply: (held: HeldSecret, version: string) => Reply },
): Reply {
  if (answer === undefined) return noWord();
  if (answer === 'none') return NONE;
  const wanted = version ?? answer.secret.current;
  if (!answer.secret.versions.has(wanted)) return refused(404, 'NO_SUCH_VERSION', 'this version is not there, or not any more');
  const said = reply(answer, wanted);
  if (said.status === 200) secrets.used(answer.secret.key, { version: wanted, as: 'loaded' });
  return said;
}

function asJson({ secret }: HeldSecret, version: string): Reply {
  const { key, current, versions } = secret;
  const data = Object.fromEntries([...(versions.get(version) ?? [])].map(([name, bytes]) => [name, bytes.toString('base64')]));
  return { status: 200, body: { secret: key, version, current, versions: [...versions.keys()], data } };
}

function noWord(): Reply {
  return unavailable('nothing has been heard of this secret yet: the agent or control is away, or has no secrets');
}

/** Names stand in the path as they are: nothing that would have to be decoded is one. */
function askedOf(url: string): Asked | undefined {
  const [path = '', query = '', ...more] = url.split('?');
  const [, , , namespace = '', name = '', ...rest] = path.split('/');
  const key = `${namespace}/${name}`;
  return more.length > 0 || !isSecretKey(key) ? undefined : { key, rest, query: new URLSearchParams(query) };
}
