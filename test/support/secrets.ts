// Secrets for tests: a folder of them beside a control plane, sidecars' identity ports that serve them, and applications that ask.

import { chmod, mkdir, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openIdentityPort } from '../../src/commands/identity-port.ts';
import { runIdentityStreams } from '../../src/discovery/identity-streams.ts';
import { Snapshot } from '../../src/snapshot.ts';
import type { RevocationList } from '../../src/spiffe/crl.ts';
import type { Identity } from '../../src/spiffe/identity.ts';
import { clientContext } from '../../src/tls/context.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import type { ControlPlane } from './control-plane.ts';
import { freePort } from './free-port.ts';
import { type Answered, type Asking, askIdentity } from './identity-api.ts';

export type Versions = Readonly<Record<string, Readonly<Record<string, string>>>>;

export function secretYaml(
  name: string,
  { versions, current, namespace = 'foo' }: { versions: Versions; current: string; namespace?: string },
): string {
  const spec = { versions: Object.entries(versions).map(([version, stringData]) => ({ version, stringData })), current };
  return `${JSON.stringify({ apiVersion: 'handfast.io/v1alpha1', kind: 'WorkloadSecret', metadata: { name, namespace }, spec })}\n`;
}

export function secretPolicyYaml(
  name: string,
  { secrets, recipients, namespace = 'foo' }: { secrets: readonly string[]; recipients: object; namespace?: string },
): string {
  return `${JSON.stringify({ apiVersion: 'handfast.io/v1alpha1', kind: 'SecretPolicy', metadata: { name, namespace }, spec: { secrets, recipients } })}\n`;
}

/** A folder that nobody else may open; files come by rename, as whoever writes secrets should do it. */
export class SecretsDir {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  static async create(path: string): Promise<SecretsDir> {
    await mkdir(path, { mode: 0o700 });
    return new SecretsDir(path);
  }

  async write(name: string, text: string): Promise<void> {
    const temporary = join(this.path, `.${name}.tmp`);
    await writeFile(temporary, text, { mode: 0o600 });
    await chmod(temporary, 0o600);
    await rename(temporary, join(this.path, name));
  }

  async secret(name: string, of: Parameters<typeof secretYaml>[1]): Promise<void> {
    await this.write(`${of.namespace ?? 'foo'}-${name}.yaml`, secretYaml(name, of));
  }

  async policy(name: string, of: Parameters<typeof secretPolicyYaml>[1]): Promise<void> {
    await this.write(`policy-${of.namespace ?? 'foo'}-${name}.yaml`, secretPolicyYaml(name, of));
  }

  async remove(file: string): Promise<void> {
    await rm(join(this.path, file));
  }
}

/** A workload's sidecar as far as secrets go: its certificate and its identity port, over the real agent. */
export class SecretSidecar implements AsyncDisposable {
  readonly port: number;
  readonly identity: Snapshot<Identity>;
  readonly #close: () => Promise<void>;

  private constructor(port: number, identity: Snapshot<Identity>, close: () => Promise<void>) {
    this.port = port;
    this.identity = identity;
    this.#close = close;
  }

  static async open(
    plane: ControlPlane,
    name: string,
    {
      preload = [],
      now = Date.now,
      namespace = 'foo',
      pod = `${namespace}/${name}`,
    }: { preload?: readonly string[]; now?: () => number; namespace?: string; pod?: string } = {},
  ): Promise<SecretSidecar> {
    const identity = new Snapshot<Identity>();
    const stopping = new AbortController();
    const common = {
      target: unixTarget(plane.address('agent')),
      nodeId: `sidecar~${pod.replace('/', '~')}`,
      token: new Snapshot(await plane.token(name, { namespace })),
      log: plane.log,
    };
    const streams = runIdentityStreams({
      ...common,
      crl: undefined,
      identity,
      revocations: new Snapshot<RevocationList>(),
      prove: clientContext,
      now: Date.now,
      signal: stopping.signal,
    });
    const opened = await openIdentityPort({ ...common, port: await freePort(), secrets: { pod, identity, preload }, now });
    await identity.first(AbortSignal.timeout(10_000));
    if (opened === undefined) throw new Error('no identity port');
    return new SecretSidecar(opened.port, identity, async () => {
      await opened.close();
      stopping.abort();
      await streams;
    });
  }

  /** `rest`: after `/v1/secrets/`. */
  ask(rest: string, asking: Asking = {}): Promise<Answered> {
    return askIdentity(this.port, `/v1/secrets/${rest}`, asking);
  }

  /** What the application is handed: the value's text, or undefined for a refusal. */
  async text(key: string, member: string, version?: string): Promise<string | undefined> {
    const { status, body } = await this.ask(version === undefined ? key : `${key}?version=${version}`);
    const data = status === 200 ? Object(body.data)[member] : undefined;
    return data === undefined ? undefined : Buffer.from(String(data), 'base64').toString();
  }

  confirm(key: string, version: string): Promise<Answered> {
    return this.ask(`${key}/receipt`, { body: { version } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#close();
  }
}
