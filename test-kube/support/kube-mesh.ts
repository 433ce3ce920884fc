// The mesh's own parts beside a real API server, each as its process with its own service account's tokens: CA, control, a node's agent and the injector.

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from '../../test/support/free-port.ts';
import { Role } from '../../test/support/handfast.ts';
import { PodNetwork } from '../../test/support/namespaces.ts';
import { PodCgroup } from '../../test/support/pod-cgroup.ts';
import { HOST, KubeCluster } from './kube-cluster.ts';
import { PlayedKubelet, type PodObject } from './played-kubelet.ts';

export const IMAGE = 'handfast:test';
const SYSTEM = 'handfast-system';
const NODE = 'node-1';
const CRDS = [
  'peerauthentications',
  'authorizationpolicies',
  'requestauthentications',
  'destinationrules',
  'serviceentries',
  'scopeconfigs',
  'meshconfigs',
];

export class KubeMesh implements AsyncDisposable {
  readonly cluster: KubeCluster;
  readonly network: PodNetwork;
  readonly kubelet: PlayedKubelet;
  readonly runDir: string;
  /** A text where this machine lets nobody make cgroups: then tokens stand alone. */
  readonly cgroup = PodCgroup.create();
  readonly roles: { ca?: Role; control?: Role; secondControl?: Role; agent?: Role; injector?: Role } = {};
  readonly #allowInPod: boolean;
  #addresses = { ca: '', control: '', secondControl: '' };

  private constructor(cluster: KubeCluster, network: PodNetwork, allowInPod: boolean) {
    this.#allowInPod = allowInPod;
    this.cluster = cluster;
    this.network = network;
    this.runDir = join(cluster.dir, 'run');
    const cgroup = typeof this.cgroup === 'string' ? undefined : this.cgroup;
    this.kubelet = new PlayedKubelet({ cluster, network, node: NODE, hostPaths: { '/run/handfast': this.runDir }, cgroup });
  }

  /** `injectorAlone`: nothing runs in the pods. `controls`: how many replicas of control. `allowInPod`: pods may ask for sidecars that make their keys themselves. */
  static async start({
    injectorAlone = false,
    controls = 1,
    allowInPod = false,
  }: {
    injectorAlone?: boolean;
    controls?: 1 | 2;
    allowInPod?: boolean;
  } = {}): Promise<KubeMesh> {
    const cluster = await KubeCluster.start();
    const mesh = new KubeMesh(cluster, await PodNetwork.create('kube'), allowInPod);
    try {
      if (allowInPod) await mesh.network.connectTo(HOST);
      await mesh.#prepare();
      if (!injectorAlone) {
        await mesh.startCa();
        await mesh.startControl();
        if (controls === 2) await mesh.startControl('secondControl');
        await mesh.startAgent();
      }
      await mesh.#startInjector();
      return mesh;
    } catch (error) {
      await mesh[Symbol.asyncDispose]();
      throw error;
    }
  }

  async startCa(): Promise<void> {
    if (this.#addresses.ca === '') this.#addresses.ca = `${HOST}:${await freePort()}`;
    const address = this.#addresses.ca;
    const token = await this.#account('handfast-ca');
    this.roles.ca = new Role(
      'ca',
      `--state=${join(this.cluster.dir, 'ca')}`,
      `--socket=${join(this.cluster.dir, 'ca.sock')}`,
      `--operator-socket=${join(this.cluster.dir, 'ca-operator.sock')}`,
      `--listen=${address}`,
      `--token-review=${this.cluster.server}`,
      `--token-review-ca=${this.cluster.caFile}`,
      `--token-review-token=${token}`,
      `--node-account=${SYSTEM}/handfast-agent`,
      `--control-account=${SYSTEM}/handfast-control`,
      ...(this.#allowInPod ? ['--tokens-alone'] : []),
    );
    await this.roles.ca.said('CA listening');
    const root = await readFile(join(this.cluster.dir, 'ca/root.pem'), 'utf8');
    await writeFile(this.#bundle, root.slice(root.indexOf('-----BEGIN CERTIFICATE')));
  }

  /** Each is a pod of its own, with its own sockets. */
  async startControl(which: 'control' | 'secondControl' = 'control'): Promise<void> {
    if (this.#addresses[which] === '') this.#addresses[which] = `${HOST}:${await freePort()}`;
    const object = await this.#systemPod('handfast-control');
    const control = new Role(
      'control',
      '--kubernetes',
      `--kube-server=${this.cluster.server}`,
      `--kube-ca=${this.cluster.caFile}`,
      `--kube-token=${await this.#account('handfast-control')}`,
      `--lease=${SYSTEM}/handfast-control`,
      ...(this.#allowInPod ? ['--serve-sidecars'] : []),
      `--listen=${this.#addresses[which]}`,
      `--ca=${this.#addresses.ca}`,
      `--trust-bundle=${this.#bundle}`,
      `--join-token-file=${await this.#nodeToken(object)}`,
      `--state=${join(this.cluster.dir, object.metadata.name)}`,
      `--socket=${join(this.cluster.dir, `${which}.sock`)}`,
      `--operator-socket=${this.operatorSocket(which)}`,
    );
    this.roles[which] = control;
    await control.said('control listening');
  }

  operatorSocket(which: 'control' | 'secondControl'): string {
    return join(this.cluster.dir, `${which}-operator.sock`);
  }

  async startAgent(): Promise<void> {
    const object = await this.#systemPod('handfast-agent');
    await mkdir(this.runDir, { recursive: true });
    this.roles.agent = new Role(
      'agent',
      `--socket=${join(this.runDir, 'agent.sock')}`,
      `--workload-socket=${join(this.runDir, 'workload.sock')}`,
      `--operator-socket=${join(this.cluster.dir, 'agent-operator.sock')}`,
      `--control=${[this.#addresses.control, this.#addresses.secondControl].filter((address) => address !== '').join(',')}`,
      `--ca=${this.#addresses.ca}`,
      `--trust-bundle=${this.#bundle}`,
      `--join-token-file=${await this.#nodeToken(object)}`,
      `--state=${join(this.cluster.dir, 'agent')}`,
      ...(typeof this.cgroup === 'string' ? [] : [`--pod-cgroups=${this.cgroup.root}`]),
    );
    await this.roles.agent.said('agent listening');
  }

  /** A pod as its manifest has it, injected by the real webhook if its namespace asks for it, and run. */
  async run(manifest: string): Promise<Awaited<ReturnType<PlayedKubelet['run']>>> {
    const { stdout, stderr, code } = await this.cluster.kubectl(['create', '-f', '-', '--output=json'], { input: manifest });
    if (code !== 0) throw new Error(stderr);
    const { metadata } = JSON.parse(stdout) as PodObject;
    return this.kubelet.run(metadata.namespace, metadata.name);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.network.dispose();
    if (typeof this.cgroup !== 'string') await this.cgroup[Symbol.asyncDispose]();
    for (const role of [this.roles.injector, this.roles.agent, this.roles.secondControl, this.roles.control, this.roles.ca])
      await role?.stop();
    await this.cluster[Symbol.asyncDispose]();
  }

  get injectorConfig(): string {
    return join(this.cluster.dir, 'injector.yaml');
  }

  get #bundle(): string {
    return join(this.cluster.dir, 'bundle.pem');
  }

  async #prepare(): Promise<void> {
    const namespaces: readonly (readonly [string, string])[] = [
      [SYSTEM, '{}'],
      ['foo', '{istio-injection: enabled}'],
      ['bar', '{istio-injection: enabled}'],
      ['legacy', '{}'],
    ];
    for (const [name, labels] of namespaces)
      await this.cluster.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: ${name}, labels: ${labels}}}`);
    for (const plural of CRDS)
      await this.cluster.apply(await readFile(new URL(`../../deploy/crds/${plural}.yaml`, import.meta.url), 'utf8'));
    await this.cluster.apply(await readFile(new URL('../../deploy/crds/controlstates.yaml', import.meta.url), 'utf8'));
    await this.cluster.apply(`{apiVersion: v1, kind: Node, metadata: {name: ${NODE}}}`);
    const rules: Readonly<Record<string, string>> = {
      'handfast-ca': '{apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}',
      'handfast-control': `{apiGroups: [""], resources: [pods, services], verbs: [list, watch]},
        {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]},
        {apiGroups: [security.istio.io, networking.istio.io, handfast.io], resources: [${CRDS.join(', ')}], verbs: [list, watch]},
        {apiGroups: [security.istio.io, networking.istio.io, handfast.io], resources: [${CRDS.map((plural) => `${plural}/status`).join(', ')}], verbs: [patch]},
        {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]},
        {apiGroups: [handfast.io], resources: [controlstates], verbs: [get, list, watch, create, update, delete]}`,
      'handfast-agent': '',
      'handfast-injector': `{apiGroups: [""], resources: [namespaces], verbs: [get, list, watch]},
        {apiGroups: [""], resources: [pods], verbs: [list, watch]},
        {apiGroups: [""], resources: [secrets], verbs: [get, create, update]},
        {apiGroups: [admissionregistration.k8s.io], resources: [mutatingwebhookconfigurations], verbs: [get, update]}`,
    };
    for (const [name, rule] of Object.entries(rules))
      await this.cluster.apply(`
{apiVersion: v1, kind: ServiceAccount, metadata: {name: ${name}, namespace: ${SYSTEM}}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: ${name}}, rules: [${rule}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ${name}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ${name}}
subjects: [{kind: ServiceAccount, name: ${name}, namespace: ${SYSTEM}}]
`);
  }

  async #startInjector(): Promise<void> {
    const port = await freePort();
    const config = this.injectorConfig;
    const inPod = { ca: this.#addresses.ca, control: [this.#addresses.control], rootsFile: this.#bundle };
    await writeFile(config, JSON.stringify({ image: IMAGE, ...(this.#allowInPod ? { inPod } : {}) }));
    await this.cluster.apply(`
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: handfast-injector}
webhooks:
  - name: injector.handfast.io
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Fail
    reinvocationPolicy: IfNeeded
    clientConfig: {service: {name: handfast-injector, namespace: ${SYSTEM}, path: /inject, port: 443}}
    rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
    namespaceSelector: {matchExpressions: [{key: istio-injection, operator: In, values: [enabled]}]}
---
{apiVersion: v1, kind: Service, metadata: {name: handfast-injector, namespace: ${SYSTEM}}, spec: {ports: [{name: https, port: 443, targetPort: ${port}}]}}
---
# An API server dials webhooks by this older kind.
apiVersion: v1
kind: Endpoints
metadata: {name: handfast-injector, namespace: ${SYSTEM}}
subsets: [{addresses: [{ip: ${HOST}}], ports: [{name: https, port: ${port}}]}]
`);
    this.roles.injector = new Role(
      'injector',
      `--config=${config}`,
      `--port=${port}`,
      `--namespace=${SYSTEM}`,
      `--kube-server=${this.cluster.server}`,
      `--kube-ca=${this.cluster.caFile}`,
      `--kube-token=${await this.#account('handfast-injector')}`,
    );
    await this.roles.injector.said('injector listening');
    const bundle = 'jsonpath={.webhooks[0].clientConfig.caBundle}';
    while ((await this.cluster.kubectl(['get', 'mutatingwebhookconfiguration', 'handfast-injector', '-o', bundle])).stdout === '')
      await delay(100);
  }

  /** A file with a token of this account for the API server. */
  async #account(name: string): Promise<string> {
    const { stdout } = await this.cluster.kubectl(['create', 'token', name, `--namespace=${SYSTEM}`]);
    return this.#file(`${name}-token`, stdout);
  }

  /** A pod of the mesh's own, which only its tokens need here. */
  async #systemPod(account: string): Promise<PodObject> {
    const name = `${account}-${Math.random().toString(36).slice(2, 8)}`;
    await this.cluster.apply(`
{apiVersion: v1, kind: Pod, metadata: {name: ${name}, namespace: ${SYSTEM}},
 spec: {serviceAccountName: ${account}, containers: [{name: handfast, image: "${IMAGE}"}]}}`);
    await this.kubelet.bind(SYSTEM, name);
    return this.kubelet.get(SYSTEM, name);
  }

  async #nodeToken(object: PodObject): Promise<string> {
    return this.#file(`${object.metadata.name}-node-token`, await this.kubelet.token(object, { audience: 'handfast-node' }));
  }

  async #file(name: string, text: string): Promise<string> {
    const path = join(this.cluster.dir, name);
    await writeFile(path, text, { mode: 0o600 });
    return path;
  }
}
