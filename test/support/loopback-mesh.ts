// A whole mesh in this process, without iptables: control, agent and CA, and pods on loopback addresses of their own whose sidecars have everything from them.

import { once } from 'node:events';
import { rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { ControlOptions } from '../../src/control/control.ts';
import { runDeltaAdsClient } from '../../src/discovery/delta-ads-client.ts';
import { runIdentityStreams } from '../../src/discovery/identity-streams.ts';
import { Interests } from '../../src/discovery/interests.ts';
import { runLedgerClient } from '../../src/discovery/ledger-client.ts';
import { MeshSource } from '../../src/discovery/mesh-source.ts';
import { sidecarSubscriptions } from '../../src/discovery/sidecar-subscriptions.ts';
import { podUid } from '../../src/policy/model.ts';
import { isWholeFor } from '../../src/proxy/whole-mesh.ts';
import { Snapshot } from '../../src/snapshot.ts';
import { clientContext } from '../../src/tls/context.ts';
import { unixTarget } from '../../src/wire/grpc-target.ts';
import { ControlPlane } from './control-plane.ts';
import { RecordingLog, type RunningSidecar, startSidecar } from './sidecar-harness.ts';

export interface PodSpec {
  readonly namespace: string;
  readonly name: string;
  readonly serviceAccount?: string;
  readonly labels?: Readonly<Record<string, string>>;
  /** One of its own unless told otherwise. A sidecar dials from 127.0.0.1: the pod that has that address is known by it. */
  readonly ip?: string;
}

/** What the application of a pod does with a connection. */
const answer = (socket: Socket, pod: string) => {
  socket.on('error', () => undefined);
  socket.on('data', () => socket.write(pod));
  socket.on('end', () => socket.end());
};

/** A pod: an application behind a sidecar. Its service port 80 is a target port named http, which is where its sidecar listens, as iptables would have it. */
export class LoopbackPod {
  readonly key: string;
  readonly ip: string;
  readonly spec: PodSpec;
  readonly sidecar: RunningSidecar;
  readonly interests: Interests;
  readonly #end: () => Promise<void>;

  constructor(of: { spec: PodSpec; ip: string; sidecar: RunningSidecar; interests: Interests; end: () => Promise<void> }) {
    this.spec = of.spec;
    this.key = `${of.spec.namespace}/${of.spec.name}`;
    this.ip = of.ip;
    this.sidecar = of.sidecar;
    this.interests = of.interests;
    this.#end = of.end;
  }

  /** As control reads it. */
  get yaml(): string {
    const { namespace, name, serviceAccount = name, labels = {} } = this.spec;
    const all = Object.entries({ app: name, 'security.istio.io/tlsMode': 'istio', ...labels }).map(
      ([key, value]) => `${key}: ${JSON.stringify(value)}`,
    );
    return `apiVersion: v1
kind: Pod
metadata: {name: ${name}, namespace: ${namespace}, labels: {${all.join(', ')}}}
spec:
  serviceAccountName: ${serviceAccount}
  containers: [{name: app, ports: [{name: http, containerPort: ${this.sidecar.sidecar.ports.inbound}}]}]
status: {podIP: ${this.ip}}
`;
  }

  /** The mode it obeys now. */
  get mode(): string | undefined {
    const mesh = this.sidecar.mesh.current;
    const self = mesh?.registry.workload(this.spec.namespace, this.spec.name);
    return self === undefined ? undefined : mesh?.policies.get(self.uid)?.inbound.mode;
  }

  /** Resolves when the pod obeys what the condition says. */
  async obeys(condition: (pod: LoopbackPod) => boolean): Promise<void> {
    const deadline = AbortSignal.timeout(20_000);
    while (!condition(this)) {
      if (deadline.aborted) throw new Error(`${this.key} does not obey: it is ${this.mode}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  /** Resolves when the pod knows a service by its address, as if it had called it. */
  async knows(service: { key: string; address: string }): Promise<void> {
    this.interests.ask(service.address);
    await this.obeys((it) => it.sidecar.mesh.current?.registry.service(service.key)?.addresses.includes(service.address) === true);
  }

  /** Asks a service address through this pod's sidecar: the answering pod's name, or the error. */
  async call(destination: { address: string; port: number }): Promise<string> {
    this.sidecar.destination = destination;
    return ask(connect({ port: this.sidecar.sidecar.ports.outbound, host: '127.0.0.1' }));
  }

  /** Asked in plaintext by somebody without a sidecar, at an address of his own. */
  async calledInPlaintext(from: string): Promise<string> {
    return ask(connect({ port: this.sidecar.sidecar.ports.inbound, host: this.ip, localAddress: from }));
  }

  end(): Promise<void> {
    return this.#end();
  }
}

export async function ask(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.once('connect', () => socket.write('who'));
    socket.once('data', (answer) => {
      resolve(String(answer));
      socket.end();
    });
    socket.once('error', (error) => resolve('code' in error ? String(error.code) : error.message));
    socket.once('close', () => resolve('closed'));
  });
}

export class LoopbackMesh implements AsyncDisposable {
  readonly plane: ControlPlane;
  readonly pods: LoopbackPod[] = [];
  readonly records: RecordingLog;
  #nextIp = 1;

  private constructor(plane: ControlPlane, records: RecordingLog) {
    this.plane = plane;
    this.records = records;
  }

  /** Control plane and pods; the mesh's objects are the pods and `yaml`. */
  static async start(specs: readonly PodSpec[], yaml: string, control: Partial<ControlOptions> = {}): Promise<LoopbackMesh> {
    const records = new RecordingLog();
    const mesh = new LoopbackMesh(await ControlPlane.create(records.log), records);
    await mesh.plane.start({ control });
    for (const spec of specs) mesh.pods.push(await mesh.#startPod(spec));
    await mesh.apply('pods.yaml', mesh.pods.map((pod) => pod.yaml).join('---\n'));
    await mesh.apply('objects.yaml', yaml);
    await Promise.all(mesh.pods.map((pod) => pod.obeys(({ mode }) => mode !== undefined)));
    return mesh;
  }

  pod(key: string): LoopbackPod {
    const found = this.pods.find((pod) => pod.key === key);
    if (found === undefined) throw new Error(`there is no pod ${key}`);
    return found;
  }

  /** Writes a file of the configuration directory. Control reads it within a second. */
  async apply(file: string, yaml: string): Promise<void> {
    await writeFile(join(this.plane.configDir, file), yaml);
  }

  async remove(file: string): Promise<void> {
    await rm(join(this.plane.configDir, file));
  }

  async #startPod(spec: PodSpec): Promise<LoopbackPod> {
    const { namespace, name, serviceAccount = name, ip = `127.1.0.${this.#nextIp++}` } = spec;
    const application = createServer({ allowHalfOpen: true }, (socket) => answer(socket, `${namespace}/${name}`)).listen(0, ip);
    await once(application, 'listening');
    const stop = new AbortController();
    const self = podUid(`${namespace}/${name}`);
    const interests = new Interests({ self, log: this.records.log, signal: stop.signal });
    const sidecar = await startSidecar({ namespace, name, interests, settings: { workloadUid: self } });
    const address = application.address();
    if (typeof address === 'object' && address !== null) sidecar.inboundDestination = { address: ip, port: address.port };
    const target = unixTarget(this.plane.address('agent'));
    const token = new Snapshot(await this.plane.token(serviceAccount, { namespace }));
    const { log } = sidecar.records;
    const common = { target, token, log, signal: stop.signal };
    const pod = `${namespace}/${name}`;
    const source = new MeshSource(sidecar.mesh, isWholeFor({ workloadUid: self }));
    const { identity, revocations } = sidecar;
    const streams = [
      runIdentityStreams({ ...common, nodeId: name, crl: 'CRL', identity, revocations, prove: clientContext, now: Date.now }),
      runDeltaAdsClient({
        ...common,
        ...sidecarSubscriptions(self, interests),
        nodeId: name,
        apply: (typeUrl, change) => source.apply(typeUrl, change),
      }),
      runLedgerClient({ ...common, ledgers: () => [{ pod, reporter: '', ended: false, ledger: sidecar.sidecar.tracker.ledger }] }),
    ];
    return new LoopbackPod({
      spec,
      ip,
      sidecar,
      interests,
      end: async () => {
        stop.abort();
        await Promise.all(streams);
        await sidecar[Symbol.asyncDispose]();
        application.close();
      },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.pods.map((pod) => pod.end()));
    await this.plane[Symbol.asyncDispose]();
  }
}
