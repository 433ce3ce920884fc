// What the checks of control (src/policy/kinds) say that a JSON schema cannot: as rules (CEL) of the definitions, so that `kubectl apply` refuses at once. Control checks all of it again, and more.

import type { ObjectKind } from '../src/control/objects/object-kinds.ts';
import type { SecretKind } from '../src/control/secrets/secret-kinds.ts';
import { pseudoLabels } from '../src/policy/policy-subject.ts';
import { secretBounds } from '../src/policy/workload-secret.ts';

/** Of the spec: `at` are names of members from there on, `[]` for what is in a list, `{}` for the values of a map. Other members go into the schema as they stand. */
export interface Rule {
  readonly at: readonly string[];
  readonly rule?: string;
  /** Names the field and the way out. */
  readonly message?: string;
  readonly maxProperties?: number;
  readonly maxLength?: number;
  readonly [mark: `x-kubernetes-${string}`]: unknown;
}

/** More than any pod has; and no label's value is longer. Without bounds a rule might cost too much. */
const MAX_LABELS = 1_000;
const MAX_LABEL_VALUE = 63;

const MAX_PORTS = 1_000;

const noWildcards = (selector: string): Rule[] => {
  const message = `${selector}.matchLabels: a selector has no wildcards: labels are compared as they stand`;
  return [
    { at: [selector, 'matchLabels'], rule: `self.all(key, !key.contains('*'))`, message, maxProperties: MAX_LABELS },
    { at: [selector, 'matchLabels', '{}'], rule: `!self.contains('*')`, message, maxLength: MAX_LABEL_VALUE },
  ];
};

/** An API server counts what a rule may cost by how many there can be of what it is about: where that is too much, control alone checks. */
const clientTls = (...at: readonly string[]): Rule[] => [
  {
    at,
    rule: 'has(self.mode)',
    message: 'tls.mode is missing; accepted: DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL',
  },
  {
    at,
    rule: `!has(self.mode) || !(self.mode in ['DISABLE', 'ISTIO_MUTUAL']) || !(has(self.clientCertificate) || has(self.privateKey) || has(self.caCertificates))`,
    message:
      'tls: clientCertificate, privateKey and caCertificates mean nothing under DISABLE and ISTIO_MUTUAL: remove them, or use MUTUAL or SIMPLE',
  },
  {
    at,
    rule: `!has(self.mode) || self.mode != 'SIMPLE' || !(has(self.clientCertificate) || has(self.privateKey))`,
    message: 'tls: under SIMPLE a client shows no certificate: remove clientCertificate and privateKey, or use MUTUAL',
  },
  {
    at,
    rule: `!has(self.mode) || self.mode != 'MUTUAL' || (has(self.clientCertificate) && has(self.privateKey))`,
    message: 'tls: MUTUAL needs clientCertificate and privateKey',
  },
  ...['clientCertificate', 'privateKey', 'caCertificates'].map((field) => ({
    at,
    rule: `!has(self.${field}) || self.${field}.startsWith('/')`,
    message: `tls.${field} must be an absolute path: a file of the sidecar's own`,
  })),
  {
    at,
    rule: `!has(self.mode) || self.mode != 'ISTIO_MUTUAL' || !has(self.subjectAltNames) || self.subjectAltNames.all(name, name.startsWith('spiffe://'))`,
    message: 'tls.subjectAltNames: under ISTIO_MUTUAL these are SPIFFE IDs, such as spiffe://cluster.local/ns/foo/sa/web',
  },
];

/** What a version holds may not change under its name: of what API servers compare, they must know the bounds. */
const unchanging = (field: string): Rule[] => [
  {
    at: ['versions', '[]'],
    rule: `has(self.${field}) == has(oldSelf.${field}) && (!has(self.${field}) || self.${field} == oldSelf.${field})`,
    message: `versions: the ${field} of a version cannot change: add a version of another name, and remove this one when nobody uses it`,
  },
  { at: ['versions', '[]', field], maxProperties: secretBounds.values },
];

const rules: Readonly<Partial<Record<ObjectKind | SecretKind, readonly Rule[]>>> = {
  PeerAuthentication: [
    {
      at: [],
      rule: 'has(self.mtls) || has(self.portLevelMtls)',
      message: 'sets no mode: give mtls.mode (UNSET inherits) or portLevelMtls',
    },
    {
      at: [],
      rule: '!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0)',
      message: 'portLevelMtls needs a selector with matchLabels: it cannot hold for a namespace or the mesh',
    },
    { at: ['portLevelMtls'], rule: 'size(self) > 0', message: 'portLevelMtls names no port: remove it' },
    {
      at: ['portLevelMtls'],
      rule: `self.all(port, port.matches('^[1-9][0-9]{0,4}$') && int(port) <= 65535)`,
      maxProperties: MAX_PORTS,
      message: 'portLevelMtls: a port is a number from 1 to 65535, without leading zeros',
    },
    ...noWildcards('selector'),
  ],
  AuthorizationPolicy: [
    {
      at: [],
      rule: `!has(self.action) || self.action != 'DENY' || (has(self.rules) && size(self.rules) > 0)`,
      message: 'rules: DENY without rules denies nothing; `rules: [{}]` denies everything',
    },
    ...noWildcards('selector'),
  ],
  DestinationRule: [
    {
      at: [],
      rule: `!has(self.workloadSelector) || !has(self.exportTo) || self.exportTo.all(to, to == '.')`,
      message: 'exportTo: a rule with a workloadSelector holds in its own namespace: use "."',
    },
    ...noWildcards('workloadSelector'),
    {
      at: ['trafficPolicy'],
      rule: 'has(self.tls) || (has(self.portLevelSettings) && size(self.portLevelSettings) > 0)',
      message: 'trafficPolicy is empty: give tls or portLevelSettings, or remove it',
    },
    {
      at: ['trafficPolicy', 'portLevelSettings'],
      rule: 'self.all(one, self.exists_one(other, other.port.number == one.port.number))',
      message: 'trafficPolicy.portLevelSettings: a port stands there twice: give each one entry',
    },
    ...clientTls('trafficPolicy', 'tls'),
    ...clientTls('trafficPolicy', 'portLevelSettings', '[]', 'tls'),
  ],
  ServiceEntry: [
    {
      at: [],
      rule: `has(self.resolution) && self.resolution == 'STATIC'`,
      message: 'resolution: destinations are known by address here; give STATIC, addresses and endpoints',
    },
    {
      at: ['addresses', '[]'],
      rule: `!self.contains('/')`,
      message: 'addresses: a CIDR block is not supported: name each address, as connections are told apart by it',
    },
    { at: ['ports'], 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['number'] },
    {
      at: ['subjectAltNames', '[]'],
      rule: `self.startsWith('spiffe://')`,
      message: 'subjectAltNames: these are SPIFFE IDs, such as spiffe://cluster.local/ns/foo/sa/web; DNS names stand in a DestinationRule',
    },
  ],
  ScopeConfig: [
    {
      at: ['object'],
      rule: `self.apiVersion.startsWith(self.kind == 'DestinationRule' ? 'networking.istio.io/' : 'security.istio.io/')`,
      message:
        'object: apiVersion and kind do not go together: security.istio.io has PeerAuthentication and AuthorizationPolicy, networking.istio.io DestinationRule',
    },
    {
      at: ['selector', 'matchLabels'],
      maxProperties: MAX_LABELS,
      rule: `self.all(key, !key.startsWith('handfast.io/') || key in ${listOf(pseudoLabels)})`,
      message: `selector.matchLabels: accepted under handfast.io/: ${pseudoLabels.join(', ')}`,
    },
    {
      at: ['selector', 'matchExpressions', '[]'],
      rule: `!self.key.startsWith('handfast.io/') || self.key in ${listOf(pseudoLabels)}`,
      message: `selector.matchExpressions: accepted under handfast.io/: ${pseudoLabels.join(', ')}`,
    },
    {
      at: ['selector', 'matchExpressions', '[]'],
      rule: `(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)`,
      message: 'selector.matchExpressions: In and NotIn need values; Exists and DoesNotExist have none',
    },
    {
      at: ['rollout', 'steps', '[]'],
      rule: 'has(self.pods) != has(self.percent)',
      message: 'rollout.steps: give either pods or percent',
    },
    {
      at: ['rollout', 'steps'],
      rule: 'has(self[size(self) - 1].percent) && self[size(self) - 1].percent == 100.0',
      message: 'rollout.steps: the last step must be everybody: percent: 100',
    },
    ...['pods', 'percent'].map((unit) => ({
      at: ['rollout', 'steps'],
      rule: `self.filter(step, has(step.${unit})).map(step, step.${unit}).isSorted()`,
      message: `rollout.steps: ${unit} is less than before it: a rollout only grows`,
    })),
  ],
  WorkloadSecret: [
    { at: ['versions'], 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': ['version'] },
    {
      at: [],
      rule: 'self.versions.exists(one, one.version == self.current)',
      message: 'current is none of versions',
    },
    ...unchanging('data'),
    ...unchanging('stringData'),
  ],
  SecretPolicy: [
    {
      at: ['recipients'],
      rule: '(has(self.serviceAccounts) && size(self.serviceAccounts) > 0) || (has(self.principals) && size(self.principals) > 0)',
      message: 'recipients names nobody: give serviceAccounts or principals, or remove the policy',
    },
  ],
};

export function rulesOf(kind: ObjectKind | SecretKind): readonly Rule[] {
  return rules[kind] ?? [];
}

function listOf(texts: readonly string[]): string {
  return `[${texts.map((text) => `'${text}'`).join(', ')}]`;
}
