// CA, control and agent in this process, each on its sockets in one directory: started, stopped and started again one by one.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from 'pino';
import { type AgentOptions, startAgent } from '../../src/agent/agent.ts';
import { type CaOptions, type RunningCa, startCa } from '../../src/ca/ca.ts';
import { createLocalToken, openLocalTokenKey } from '../../src/ca/local-token.ts';
import { type ControlOptions, type RunningControl, startControl } from '../../src/control/control.ts';
import { askOperator } from '../../src/wire/operator-client.ts';

export const AUDIENCE = 'handfast-ca';
export const TRUST_DOMAIN = 'cluster.local';

const EMPTY_MESH = 'apiVersion: handfast.io/v1alpha1\nkind: MeshConfig\nmetadata: {name: mesh}\nspec: {}\n';

export class ControlPlane implements AsyncDisposable {
  readonly dir: string;
  readonly log: Logger;
  ca: RunningCa | undefined;
  control: RunningControl | undefined;
  agent: { stop(): Promise<void> } | undefined;

  private constructor(dir: string, log: Logger) {
    this.dir = dir;
    this.log = log;
  }

  /** Nothing runs yet. The configuration is an empty mesh until a test writes more into `configDir`. */
  static async create(log: Logger): Promise<ControlPlane> {
    const plane = new ControlPlane(await mkdtemp(join(tmpdir(), 'hf-plane-')), log);
    await mkdir(plane.configDir);
    await writeFile(join(plane.configDir, 'mesh.yaml'), EMPTY_MESH);
    return plane;
  }

  get configDir(): string {
    return join(this.dir, 'config');
  }

  socket(name: string): string {
    return join(this.dir, `${name}.sock`);
  }

  /** As gRPC writes it. */
  address(name: string): string {
    return `unix:${this.socket(name)}`;
  }

  caOptions(change: Partial<CaOptions> = {}): CaOptions {
    return {
      stateDir: join(this.dir, 'ca'),
      socket: this.socket('ca'),
      operatorSocket: this.socket('ca-operator'),
      trustDomain: TRUST_DOMAIN,
      svidTtlMs: 60_000,
      nodeTtlMs: 60_000,
      jwtTtlMs: 60_000,
      audience: AUDIENCE,
      tokensAlone: false,
      log: this.log,
      now: Date.now,
      ...change,
    };
  }

  async startCa(change: Partial<CaOptions> = {}): Promise<RunningCa> {
    this.ca = await startCa(this.caOptions(change));
    return this.ca;
  }

  async startControl(change: Partial<ControlOptions> = {}): Promise<RunningControl> {
    this.control = await startControl({
      objects: { directory: this.configDir },
      socket: this.socket('control'),
      operatorSocket: this.socket('control-operator'),
      trustDomain: TRUST_DOMAIN,
      stateDir: join(this.dir, 'control'),
      log: this.log,
      now: Date.now,
      ...change,
    });
    return this.control;
  }

  agentOptions(change: Partial<AgentOptions> = {}): AgentOptions {
    return {
      socket: this.socket('agent'),
      workloadSocket: this.socket('workload'),
      operatorSocket: this.socket('agent-operator'),
      workloadsFile: undefined,
      trustDomain: TRUST_DOMAIN,
      ca: this.address('ca'),
      caKind: 'handfast',
      caServerName: undefined,
      trustBundleFile: undefined,
      stateDir: join(this.dir, 'agent'),
      joinTokenFile: undefined,
      controls: [this.address('control')],
      rotateEveryMs: undefined,
      log: this.log,
      now: Date.now,
      ...change,
    };
  }

  async startAgent(change: Partial<AgentOptions> = {}): Promise<void> {
    this.agent = await startAgent(this.agentOptions(change));
  }

  /** CA, control and agent. */
  async start(change: { ca?: Partial<CaOptions>; agent?: Partial<AgentOptions>; control?: Partial<ControlOptions> } = {}): Promise<void> {
    await this.startControl(change.control);
    await this.startCa(change.ca);
    await this.startAgent(change.agent);
  }

  /** A token of a workload in namespace foo, unless told otherwise. */
  async token(serviceAccount: string, of: { namespace?: string; audience?: string; ttlS?: number; now?: number } = {}): Promise<string> {
    const { namespace = 'foo', audience = AUDIENCE, ttlS = 600, now = Date.now() } = of;
    return createLocalToken({ namespace, serviceAccount, audience, ttlS, now, key: await openLocalTokenKey(join(this.dir, 'ca')) });
  }

  /** Asks as an operator would. */
  ask(role: 'ca' | 'agent' | 'control', method: 'GET' | 'POST', path: string, body?: object): Promise<unknown> {
    return askOperator(this.socket(`${role}-operator`), { method, path, ...(body === undefined ? {} : { body }) });
  }

  async stopAgent(): Promise<void> {
    const { agent } = this;
    this.agent = undefined;
    await agent?.stop();
  }

  async stopCa(): Promise<void> {
    const { ca } = this;
    this.ca = undefined;
    await ca?.stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopAgent();
    await this.stopCa();
    await this.control?.stop();
    await rm(this.dir, { recursive: true });
  }
}
