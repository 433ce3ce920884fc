// Which ports of a pod are HTTP: by the words of its services, and by its own.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { declaredProtocol } from '../../src/policy/http-ports.ts';
import { PolicyWorld } from '../support/policy-world.ts';

describe('what is said of a port', () => {
  for (const [name, appProtocol, wanted] of [
    ['http', undefined, 'http'],
    ['http-web', undefined, 'http'],
    ['http2', undefined, 'other'],
    ['http2-web', undefined, 'other'],
    ['https', undefined, 'other'],
    ['grpc', undefined, 'other'],
    ['grpc-web', undefined, 'other'],
    ['grpc-web-a', undefined, 'other'],
    ['tcp-http', undefined, 'other'],
    ['ws', undefined, 'http'],
    ['httpx', undefined, undefined],
    ['web', undefined, undefined],
    [undefined, undefined, undefined],
    [undefined, 'http', 'http'],
    [undefined, 'HTTP', 'http'],
    [undefined, 'kubernetes.io/ws', 'http'],
    [undefined, 'kubernetes.io/h2c', 'other'],
    [undefined, 'example.com/own', 'other'],
    ['http', 'tcp', 'other'],
    ['tcp', 'http', 'http'],
    ['http', '', 'http'],
  ] as const)
    test(`name ${name}, appProtocol ${appProtocol}: ${wanted}`, () => assert.equal(declaredProtocol({ name, appProtocol }), wanted));
});

const service = (name: string, ports: string) => `---
apiVersion: v1
kind: Service
metadata: {name: ${name}, namespace: foo}
spec: {selector: {app: web}, ports: [${ports}]}
`;
const pod = (annotations = '') => `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: foo, labels: {app: web}${annotations === '' ? '' : `, annotations: {handfast.io/http-ports: "${annotations}"}`}}
spec: {containers: [{name: a, ports: [{name: main, containerPort: 8080}]}]}
status: {podIP: 10.0.0.1}
`;

describe('a pod’s', () => {
  const ports = (...documents: string[]) => new PolicyWorld(documents.join('')).httpPorts('foo/web');
  test('target port of a service’s', () =>
    assert.deepEqual(ports(pod(), service('a', '{name: http, port: 80, targetPort: 8081}')), [8081]));
  test('target port by name', () => assert.deepEqual(ports(pod(), service('a', '{name: http, port: 80, targetPort: main}')), [8080]));
  test('several, in order, each once', () =>
    assert.deepEqual(
      ports(pod(), service('a', '{name: http-b, port: 90}, {name: http-a, port: 80}'), service('b', '{name: http, port: 90}')),
      [80, 90],
    ));
  test('none of a service that does not say', () => assert.deepEqual(ports(pod(), service('a', '{name: web, port: 80}')), []));
  test('one that says and one that does not', () =>
    assert.deepEqual(ports(pod(), service('a', '{name: http, port: 80}'), service('b', '{name: web, port: 80}')), [80]));
  test('none where another says something else', () =>
    assert.deepEqual(ports(pod(), service('a', '{name: http, port: 80}'), service('b', '{name: tcp, port: 80}')), []));
  test('its own word goes before all', () => assert.deepEqual(ports(pod('9090, 80'), service('a', '{name: http, port: 81}')), [80, 9090]));
  test('its own word may be none', () => assert.deepEqual(ports(pod(' '), service('a', '{name: http, port: 81}')), []));
  for (const bad of ['http', '0', '65536', '80-90', '80;90', '-1', '8e1'])
    test(`${bad} is refused`, () => assert.throws(() => ports(pod(bad)), /handfast\.io\/http-ports.*is no port/));
});
