// What is ours in an injected pod: names, ports and the id that capture exempts. Nobody else may use them.

export const INIT_CONTAINER = 'handfast-init';
export const SIDECAR_CONTAINER = 'handfast-proxy';
export const VOLUME_PREFIX = 'handfast-';
/** The sidecar is told by it what to ask the application in kubelet's stead. */
export const PROBERS_VARIABLE = 'HANDFAST_APP_PROBERS';

/** uid and gid of the sidecar: whoever else has it goes past the sidecar. */
export const PROXY_ID = 1337;

/** On loopback alone, for the pod's applications. */
export const IDENTITY_PORT = 15004;
export const TUNNEL_PORT = 15008;
export const STATUS_PORT = 15020;
export const READINESS_PORT = 15021;
/** 15000 is Istio's for administration, and kept free; 15001 and 15006 are where connections are redirected to. */
export const SIDECAR_PORTS: readonly number[] = [15000, 15001, IDENTITY_PORT, 15006, TUNNEL_PORT, STATUS_PORT, READINESS_PORT];

/** Says whether a pod gets the sidecar: a label, and an annotation of the same name where there is no label. */
export const INJECT = 'sidecar.istio.io/inject';
/** The annotation that says what was put in. */
export const STATUS = 'sidecar.istio.io/status';

/** Whether the pod's keys are made by its node's agent or by its sidecar. */
export const IDENTITY = 'handfast.io/identity';
/** Secrets that the sidecar is to have at hand, `NAMESPACE/NAME`, comma-separated. */
export const SECRETS = 'handfast.io/secrets';
/** The roots that a sidecar without an agent begins with, put in by us and shown to it as a file. */
export const ROOTS = 'handfast.io/roots';

/** What peers must know of an injected pod: that it speaks mTLS, and that it takes tunnels. */
export const MESH_LABELS: Readonly<Record<string, string>> = {
  'security.istio.io/tlsMode': 'istio',
  'networking.istio.io/tunnel': 'http',
};

/** The way out of every refusal. */
export const OPT_OUT = `or label the pod ${INJECT}: "false" to leave it out of the mesh`;
