// Our trimmed protos against the whole ones: what we write Envoy's definitions read, and the other way round. Where no upstream comes through npm
// (istio's workload and citadel), the bytes are pinned by hand from istio's field numbers.

import assert from 'node:assert/strict';
import { dirname, join } from 'node:path';
import { before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadSync, type MessageTypeDefinition, type PackageDefinition } from '@grpc/proto-loader';
import { DataSource, Node } from '../../src/wire/gen/envoy/config/core/v3/base.ts';
import { Secret } from '../../src/wire/gen/envoy/extensions/transport_sockets/tls/v3/secret.ts';
import { AggregatedDiscoveryServiceService } from '../../src/wire/gen/envoy/service/discovery/v3/ads.ts';
import {
  DeltaDiscoveryRequest,
  DeltaDiscoveryResponse,
  DiscoveryRequest,
  DiscoveryResponse,
} from '../../src/wire/gen/envoy/service/discovery/v3/discovery.ts';
import { SecretDiscoveryServiceService } from '../../src/wire/gen/envoy/service/secret/v3/sds.ts';
import { Status } from '../../src/wire/gen/google/rpc/status.ts';
import { Action, Authorization, Scope } from '../../src/wire/gen/istio/security/authorization.ts';
import {
  IstioCertificateRequest,
  IstioCertificateResponse,
  IstioCertificateServiceService,
} from '../../src/wire/gen/istio/v1/auth/citadel.ts';
import { Address, NetworkMode, TunnelProtocol, WorkloadStatus } from '../../src/wire/gen/istio/workload/workload.ts';

const deps = join(dirname(fileURLToPath(import.meta.resolve('@grpc/grpc-js-xds/package.json'))), 'deps');
let full: PackageDefinition;
before(() => {
  full = loadSync(
    ['envoy/service/discovery/v3/ads.proto', 'envoy/service/secret/v3/sds.proto', 'envoy/extensions/transport_sockets/tls/v3/secret.proto'],
    {
      includeDirs: ['envoy-api', 'googleapis', 'protoc-gen-validate', 'xds'].map((name) => join(deps, name)),
      bytes: Buffer,
      enums: String,
      longs: Number,
      arrays: true,
      objects: true,
      oneofs: true,
    },
  );
});

type Plain = Readonly<Record<string, unknown>>;
const upstream = (name: string) => full[name] as MessageTypeDefinition<object, object>;

interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

/** One message in both tongues: ours filled in every field, and what the whole proto must read from it. */
function pair<T>(name: string, ours: Codec<T>, message: T, theirs: Plain): () => void {
  return () => {
    const type = upstream(name);
    const bytes = ours.encode(message).finish();
    assertHolds(type.deserialize(Buffer.from(bytes)), theirs, name);
    assert.deepEqual(ours.decode(type.serialize({ ...theirs })), message);
    assert.deepEqual(Buffer.from(bytes).toString('hex'), type.serialize({ ...theirs }).toString('hex'));
  };
}

/** Every named field is as expected; fields that we do not have are at their defaults. */
function assertHolds(actual: unknown, expected: unknown, path: string): void {
  if (typeof expected !== 'object' || expected === null || Buffer.isBuffer(expected)) {
    assert.deepEqual(actual, expected, path);
    return;
  }
  assert.ok(typeof actual === 'object' && actual !== null, `${path} is missing`);
  if (Array.isArray(expected)) assert.equal(Array.isArray(actual) ? actual.length : -1, expected.length, path);
  for (const [key, value] of Object.entries(expected)) assertHolds((actual as Plain)[key], value, `${path}.${key}`);
}

const any = { typeUrl: 'type.googleapis.com/x', value: Buffer.from('0a01ff', 'hex') };
const theirAny = { type_url: any.typeUrl, value: any.value };
const status = { code: 3, message: 'bad \u00fc', details: [any] };
const theirStatus = { code: 3, message: 'bad \u00fc', details: [theirAny] };
const node = {
  id: 'sidecar~10.0.0.1~a.b~c',
  cluster: 'c',
  metadata: { A: 'x', B: 1.5, C: true, D: ['y', null], E: { f: 'g' } },
  userAgentName: 'handfast',
  userAgentVersion: '1',
};
const theirNode = {
  id: node.id,
  cluster: 'c',
  metadata: {
    fields: {
      A: { stringValue: 'x' },
      B: { numberValue: 1.5 },
      C: { boolValue: true },
      D: { listValue: { values: [{ stringValue: 'y' }, { nullValue: 'NULL_VALUE' }] } },
      E: { structValue: { fields: { f: { stringValue: 'g' } } } },
    },
  },
  userAgentName: 'handfast',
  userAgentVersion: '1',
};
const pem = Buffer.from('-----BEGIN CERTIFICATE-----\n\u0000\u00ff', 'latin1');

describe("Envoy's whole protos", () => {
  test('google.rpc.Status', () => pair('google.rpc.Status', Status, status, theirStatus)());
  test('Node', () => pair('envoy.config.core.v3.Node', Node, node, theirNode)());
  for (const [key, value] of [
    ['filename', '/etc/x'],
    ['inlineBytes', pem],
    ['inlineString', 'text'],
    ['environmentVariable', 'HOME'],
  ] as const) {
    test(`DataSource ${key}`, () => {
      const specifier = (
        key === 'inlineBytes' ? { $case: key, value: pem } : { $case: key, value: String(value) }
      ) as DataSource['specifier'];
      pair('envoy.config.core.v3.DataSource', DataSource, { specifier }, { [key]: value })();
    });
  }

  test('Secret with a tls_certificate', () => {
    const source = (value: Buffer): DataSource => ({ specifier: { $case: 'inlineBytes', value } });
    const value = { certificateChain: source(pem), privateKey: source(Buffer.from('key')), password: source(Buffer.from('pw')) };
    pair(
      'envoy.extensions.transport_sockets.tls.v3.Secret',
      Secret,
      { name: 'default', type: { $case: 'tlsCertificate', value } },
      {
        name: 'default',
        tlsCertificate: {
          certificateChain: { inlineBytes: pem },
          privateKey: { inlineBytes: Buffer.from('key') },
          password: { inlineBytes: Buffer.from('pw') },
        },
      },
    )();
  });

  test('Secret with a validation_context', () => {
    pair(
      'envoy.extensions.transport_sockets.tls.v3.Secret',
      Secret,
      {
        name: 'ROOTCA',
        type: {
          $case: 'validationContext',
          value: { trustedCa: { specifier: { $case: 'inlineString', value: 'pem' } }, crl: undefined, customValidatorConfig: undefined },
        },
      },
      { name: 'ROOTCA', validationContext: { trustedCa: { inlineString: 'pem' } } },
    )();
  });

  test('DiscoveryRequest', () => {
    const fields = { versionInfo: 'v1', resourceNames: ['default', 'ROOTCA'], typeUrl: 't', responseNonce: 'n' };
    pair(
      'envoy.service.discovery.v3.DiscoveryRequest',
      DiscoveryRequest,
      { ...fields, node, errorDetail: status },
      { ...fields, node: theirNode, errorDetail: theirStatus },
    )();
  });

  test('DiscoveryResponse', () => {
    const fields = { versionInfo: 'v1', typeUrl: 't', nonce: 'n' };
    pair(
      'envoy.service.discovery.v3.DiscoveryResponse',
      DiscoveryResponse,
      { ...fields, resources: [any, any] },
      { ...fields, resources: [theirAny, theirAny] },
    )();
  });

  test('DeltaDiscoveryRequest', () => {
    const fields = {
      typeUrl: 't',
      resourceNamesSubscribe: ['a', '*'],
      resourceNamesUnsubscribe: ['b'],
      initialResourceVersions: { a: '1', 'ns/host': '2' },
      responseNonce: 'n',
    };
    pair(
      'envoy.service.discovery.v3.DeltaDiscoveryRequest',
      DeltaDiscoveryRequest,
      { ...fields, node, errorDetail: status },
      { ...fields, node: theirNode, errorDetail: theirStatus },
    )();
  });

  test('DeltaDiscoveryResponse and Resource', () => {
    const fields = { systemVersionInfo: 's', typeUrl: 't', nonce: 'n', removedResources: ['gone'] };
    const resource = { name: 'r', version: '7', aliases: ['alias'] };
    pair(
      'envoy.service.discovery.v3.DeltaDiscoveryResponse',
      DeltaDiscoveryResponse,
      { ...fields, resources: [{ ...resource, resource: any }] },
      { ...fields, resources: [{ ...resource, resource: theirAny }] },
    )();
  });

  test('a message of Envoy with fields that we trimmed away is read for what we know', () => {
    const bytes = upstream('envoy.service.discovery.v3.DiscoveryRequest').serialize({
      versionInfo: 'v',
      node: {
        id: 'n',
        locality: { region: 'r' },
        userAgentBuildVersion: { version: { majorNumber: 1 } },
        clientFeatures: ['f'],
        extensions: [{ name: 'e' }],
      },
      resourceNames: ['a'],
      resourceLocators: [{ name: 'l' }],
      typeUrl: 't',
    });
    const read = DiscoveryRequest.decode(bytes);
    assert.equal(read.node?.id, 'n');
    assert.deepEqual([read.versionInfo, read.typeUrl, read.resourceNames], ['v', 't', ['a']]);
    const secret = upstream('envoy.extensions.transport_sockets.tls.v3.Secret').serialize({
      name: 'ROOTCA',
      validationContext: {
        trustedCa: { inlineString: 'x' },
        matchTypedSubjectAltNames: [{ sanType: 'URI', matcher: { exact: 'spiffe://a/b' } }],
        allowExpiredCertificate: true,
      },
    });
    assert.deepEqual(Secret.decode(secret), {
      name: 'ROOTCA',
      type: {
        $case: 'validationContext',
        value: { trustedCa: { specifier: { $case: 'inlineString', value: 'x' } }, crl: undefined, customValidatorConfig: undefined },
      },
    });
  });

  test('a secret of a kind that we do not read is one without a type, not another kind', () => {
    const bytes = upstream('envoy.extensions.transport_sockets.tls.v3.Secret').serialize({
      name: 'default',
      sessionTicketKeys: { keys: [{ inlineString: 'x' }] },
    });
    assert.deepEqual(Secret.decode(bytes), { name: 'default', type: undefined });
  });

  test('the methods have the paths that Envoy, SPIRE and istiod serve', () => {
    assert.equal(
      AggregatedDiscoveryServiceService.deltaAggregatedResources.path,
      '/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources',
    );
    assert.equal(SecretDiscoveryServiceService.streamSecrets.path, '/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets');
    assert.equal(IstioCertificateServiceService.createCertificate.path, '/istio.v1.auth.IstioCertificateService/CreateCertificate');
    const theirs = full['envoy.service.discovery.v3.AggregatedDiscoveryService'] as Record<
      string,
      { path: string; requestStream: boolean; responseStream: boolean }
    >;
    assert.equal(theirs.DeltaAggregatedResources?.path, AggregatedDiscoveryServiceService.deltaAggregatedResources.path);
    assert.ok(theirs.DeltaAggregatedResources?.requestStream && theirs.DeltaAggregatedResources.responseStream);
  });
});

describe('bytes pinned by hand', () => {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  /** field<<3 | 2, length, bytes: for field numbers up to 2,047 and short content. */
  const lengthDelimited = (field: number, content: string | Buffer) => {
    const bytes = Buffer.from(content);
    return Buffer.concat([tag(field, 2), Buffer.of(bytes.length), bytes]);
  };
  const varint = (field: number, value: number) => Buffer.concat([tag(field, 0), Buffer.of(value)]);
  const tag = (field: number, wireType: number) => {
    const value = (field << 3) | wireType;
    return value < 0x80 ? Buffer.of(value) : Buffer.of((value & 0x7f) | 0x80, value >> 7);
  };

  // istio pkg/workloadapi/workload.proto: Address workload=1 service=2; Workload name=1 namespace=2 addresses=3 tunnel_protocol=5 trust_domain=6
  // service_account=7 authorization_policies=16 status=17 uid=20 services=22 network_mode=25; Service name=1 namespace=2 hostname=3 addresses=4 ports=5 subject_alt_names=6 extensions=10.
  test('istio.workload.Address with a workload', () => {
    const port = Buffer.concat([varint(1, 80), varint(2, 90)]);
    const portList = lengthDelimited(1, port);
    const expected = lengthDelimited(
      1,
      Buffer.concat([
        lengthDelimited(1, 'n'),
        lengthDelimited(2, 'ns'),
        lengthDelimited(3, Buffer.of(10, 0, 0, 1)),
        varint(5, 2),
        lengthDelimited(6, 'td'),
        lengthDelimited(7, 'sa'),
        lengthDelimited(16, 'p'),
        varint(17, 1),
        lengthDelimited(20, 'u'),
        lengthDelimited(22, Buffer.concat([lengthDelimited(1, 'k'), lengthDelimited(2, portList)])),
        varint(25, 1),
      ]),
    );
    const message: Address = {
      type: {
        $case: 'workload',
        value: {
          name: 'n',
          namespace: 'ns',
          addresses: [Buffer.of(10, 0, 0, 1)],
          network: '',
          tunnelProtocol: TunnelProtocol.LEGACY_ISTIO_MTLS,
          trustDomain: 'td',
          serviceAccount: 'sa',
          node: '',
          status: WorkloadStatus.UNHEALTHY,
          clusterId: '',
          uid: 'u',
          hostname: '',
          services: { k: { ports: [{ servicePort: 80, targetPort: 90 }] } },
          authorizationPolicies: ['p'],
          networkMode: NetworkMode.HOST_NETWORK,
        },
      },
    };
    assert.equal(hex(Address.encode(message).finish()), hex(expected));
    assert.deepEqual(Address.decode(expected), message);
    // Once in full, so that the helper above cannot be wrong in the same way as the code.
    assert.equal(
      hex(expected),
      '0a33' +
        '0a016e' +
        '12026e73' +
        '1a040a000001' +
        '2802' +
        '32027464' +
        '3a027361' +
        '82010170' +
        '880101' +
        'a2010175' +
        'b2010b' +
        '0a016b' +
        '1206' +
        '0a04' +
        '0850' +
        '105a' +
        'c80101',
    );
  });

  // istio pkg/workloadapi/security/authorization.proto: Authorization name=1 namespace=2 scope=3 action=4 rules=5 dry_run=6; a rule's clauses=1, a clause's matches=2; Match
  // namespaces=1 not_namespaces=2 principals=3 ... service_accounts=11 not_service_accounts=12; StringMatch exact=1 prefix=2 suffix=3 presence=4.
  test('istio.security.Authorization', () => {
    const text = (field: number, value: string) => lengthDelimited(field, value);
    const match = Buffer.concat([
      lengthDelimited(1, text(1, 'foo')),
      lengthDelimited(2, text(2, 'dev-')),
      lengthDelimited(3, text(3, '/sa/x')),
      lengthDelimited(4, lengthDelimited(4, '')),
      lengthDelimited(5, Buffer.concat([lengthDelimited(1, Buffer.of(10, 0, 0, 0)), varint(2, 8)])),
      lengthDelimited(9, Buffer.of(80)),
      lengthDelimited(11, Buffer.concat([text(1, 'ns'), text(2, 'sa')])),
    ]);
    const expected = Buffer.concat([
      text(1, 'n'),
      text(2, 'ns'),
      varint(3, 2),
      varint(4, 1),
      lengthDelimited(5, lengthDelimited(1, lengthDelimited(2, match))),
      varint(6, 1),
    ]);
    const message = Authorization.decode(expected);
    assert.equal(hex(Authorization.encode(message).finish()), hex(expected));
    assert.deepEqual([message.scope, message.action, message.dryRun], [Scope.WORKLOAD_SELECTOR, Action.DENY, true]);
    const [only] = message.rules[0]?.clauses[0]?.matches ?? [];
    assert.deepEqual(only?.namespaces, [{ matchType: { $case: 'exact', value: 'foo' } }]);
    assert.deepEqual(only?.notNamespaces, [{ matchType: { $case: 'prefix', value: 'dev-' } }]);
    assert.deepEqual(only?.principals, [{ matchType: { $case: 'suffix', value: '/sa/x' } }]);
    assert.deepEqual(only?.notPrincipals, [{ matchType: { $case: 'presence', value: {} } }]);
    assert.deepEqual(only?.sourceIps, [{ address: Buffer.of(10, 0, 0, 0), length: 8 }]);
    assert.deepEqual(only?.destinationPorts, [80]);
    assert.deepEqual(only?.serviceAccounts, [{ namespace: 'ns', serviceAccount: 'sa' }]);
  });

  test('istio.workload.Address with a service', () => {
    const expected = lengthDelimited(
      2,
      Buffer.concat([
        lengthDelimited(1, 'n'),
        lengthDelimited(2, 'ns'),
        lengthDelimited(3, 'h'),
        lengthDelimited(4, lengthDelimited(2, Buffer.of(10, 96, 0, 1))),
        lengthDelimited(5, Buffer.concat([varint(1, 80), varint(2, 90)])),
        lengthDelimited(6, 'spiffe://a/b'),
        lengthDelimited(
          10,
          Buffer.concat([
            lengthDelimited(1, 'e'),
            lengthDelimited(2, Buffer.concat([lengthDelimited(1, 't'), lengthDelimited(2, Buffer.of(1))])),
          ]),
        ),
      ]),
    );
    const message: Address = {
      type: {
        $case: 'service',
        value: {
          name: 'n',
          namespace: 'ns',
          hostname: 'h',
          addresses: [{ network: '', address: Buffer.of(10, 96, 0, 1) }],
          ports: [{ servicePort: 80, targetPort: 90 }],
          subjectAltNames: ['spiffe://a/b'],
          extensions: [{ name: 'e', config: { typeUrl: 't', value: Buffer.of(1) } }],
        },
      },
    };
    assert.equal(hex(Address.encode(message).finish()), hex(expected));
    assert.deepEqual(Address.decode(expected), message);
  });

  test('the numbers of the enums: HBONE is 1, healthy is what is left out', () => {
    assert.deepEqual([TunnelProtocol.NONE, TunnelProtocol.HBONE], [0, 1]);
    assert.deepEqual([WorkloadStatus.HEALTHY, WorkloadStatus.UNHEALTHY], [0, 1]);
  });

  // istio security/proto/istioca.proto: csr=1 validity_duration=3 metadata=4; cert_chain=1.
  test('istio.v1.auth.IstioCertificateRequest and its answer', () => {
    const request = { csr: 'c', validityDuration: 3600, metadata: { a: 'b' } };
    const expected = Buffer.from('0a0163' + '18901c' + '220a' + '0a08' + '0a0161' + '1203' + '1a0162', 'hex');
    assert.equal(hex(IstioCertificateRequest.encode(request).finish()), hex(expected));
    assert.deepEqual(IstioCertificateRequest.decode(expected), request);
    const answer = { certChain: ['leaf', 'root'] };
    assert.equal(hex(IstioCertificateResponse.encode(answer).finish()), '0a046c656166' + '0a04726f6f74');
  });

  test('a lifetime larger than a number can hold is refused, not rounded', () => {
    assert.throws(() => IstioCertificateRequest.decode(Buffer.from('18ffffffffffffffff7f', 'hex')));
    assert.equal(IstioCertificateRequest.decode(Buffer.from('18901c', 'hex')).validityDuration, 3600);
  });
});
