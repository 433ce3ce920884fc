// The application's probes as the injector writes them: what is taken, and that every mistake is named.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { HandfastError } from '../../../src/errors.ts';
import { parseAppProbers } from '../../../src/probes/app-probers.ts';

const OWN = new Set([15000, 15001, 15004, 15006, 15008, 15020, 15021]);
const LIVEZ = '/app-health/httpbin/livez';
const parse = (value: unknown) => parseAppProbers(typeof value === 'string' ? value : JSON.stringify(value), OWN);

function problems(value: unknown): string[] {
  try {
    parse(value);
  } catch (error) {
    assert.ok(error instanceof HandfastError);
    assert.equal(error.code, 'CONFIG_INVALID');
    return error.message.split('\n');
  }
  return [];
}

describe('probers that are taken', () => {
  it('http-with-everything', () => {
    const httpHeaders = [
      { name: 'Host', value: 'a.example' },
      { name: 'X-Twice', value: '1' },
      { name: 'X-Twice', value: '2' },
    ];
    const probers = parse({ [LIVEZ]: { httpGet: { path: '/live?deep=1', port: 8443, scheme: 'HTTPS', httpHeaders }, timeoutSeconds: 7 } });
    assert.deepEqual(probers.get(LIVEZ), {
      action: { kind: 'httpGet', path: '/live?deep=1', port: 8443, scheme: 'HTTPS', httpHeaders },
      timeoutMs: 7_000,
    });
  });

  it('defaults-are-kubernetes-own', () => {
    const probers = parse({
      [LIVEZ]: { httpGet: { port: 80 } },
      '/app-health/a/readyz': { tcpSocket: { port: 5432 } },
      '/app-health/a-1/startupz': { grpc: { port: 9090 } },
    });
    assert.deepEqual(
      [...probers.values()],
      [
        { action: { kind: 'httpGet', path: '/', port: 80, scheme: 'HTTP', httpHeaders: [] }, timeoutMs: 1_000 },
        { action: { kind: 'tcpSocket', port: 5432 }, timeoutMs: 1_000 },
        { action: { kind: 'grpc', port: 9090, service: '' }, timeoutMs: 1_000 },
      ],
    );
  });

  it('a-hook-has-the-time-that-it-takes', () => {
    const path = '/app-lifecycle/httpbin/prestop';
    assert.equal(parse({ [path]: { httpGet: { port: 80 } } }).get(path)?.timeoutMs, 3_600_000);
    assert.equal(parse({ [path]: { httpGet: { port: 80 }, timeoutSeconds: 5 } }).get(path)?.timeoutMs, 5_000);
  });

  it('paths-go-out-as-kubelet-would-send-them', () => {
    const sent = (path: string) => {
      const { action } = parse({ [LIVEZ]: { httpGet: { path, port: 80 } } }).get(LIVEZ) ?? {};
      return action?.kind === 'httpGet' ? action.path : undefined;
    };
    assert.equal(sent('healthz'), '/healthz');
    assert.equal(sent(''), '/');
    assert.equal(sent('/a#b'), '/a');
    assert.equal(sent('/a b/ü?q=%20'), '/a%20b/%C3%BC?q=%20');
    assert.equal(sent('//elsewhere.example/x'), '//elsewhere.example/x');
    assert.equal(sent('/a\r\nX: y'), '/a%0D%0AX:%20y');
  });

  it('none-at-all', () => assert.equal(parse({}).size, 0));
});

describe('probers that are refused by name', () => {
  const cases: Readonly<Record<string, readonly [unknown, RegExp]>> = {
    'no JSON': ['{', /^--app-probers: /],
    'a list': [[], /not a JSON object/],
    'a path twice': [`{"${LIVEZ}": {"tcpSocket": {"port": 1}}, "${LIVEZ}": {"tcpSocket": {"port": 2}}}`, /stands twice/],
    'another path': [{ '/app-health/httpbin/alivez': { tcpSocket: { port: 1 } } }, /alivez": is no path of a probe/],
    'a hook among probes': [{ '/app-health/httpbin/prestop': { tcpSocket: { port: 1 } } }, /is no path of a probe/],
    'a container that is none': [{ '/app-health/../livez': { tcpSocket: { port: 1 } } }, /is no path of a probe/],
    'no action': [{ [LIVEZ]: { timeoutSeconds: 1 } }, /one of httpGet, tcpSocket and grpc is needed, and 0 are there/],
    'two actions': [{ [LIVEZ]: { tcpSocket: { port: 1 }, grpc: { port: 1 } } }, /and 2 are there/],
    'an unknown field': [{ [LIVEZ]: { httpGet: { port: 1, host: 'x' } } }, /httpGet has an unknown field "host"; accepted: path, port/],
    'a port by name': [{ [LIVEZ]: { httpGet: { port: 'http' } } }, /httpGet\.port "http": a whole number from 1 to 65535 is needed/],
    'no port': [{ [LIVEZ]: { tcpSocket: {} } }, /tcpSocket\.port is missing/],
    "the sidecar's own port": [{ [LIVEZ]: { tcpSocket: { port: 15006 } } }, /tcpSocket\.port 15006 is the sidecar's own/],
    'another scheme': [{ [LIVEZ]: { httpGet: { port: 1, scheme: 'http' } } }, /scheme "http": HTTP or HTTPS/],
    'a header with a line break': [
      { [LIVEZ]: { httpGet: { port: 1, httpHeaders: [{ name: 'X', value: 'a\r\nY: b' }] } } },
      /httpHeaders\[0\]: Invalid character/,
    ],
    'a header without a name': [
      { [LIVEZ]: { httpGet: { port: 1, httpHeaders: [{ value: 'a' }] } } },
      /httpHeaders\[0\]\.name must be a text/,
    ],
    'no time': [{ [LIVEZ]: { tcpSocket: { port: 1 }, timeoutSeconds: 0 } }, /timeoutSeconds 0: a whole number from 1/],
    'a service that is no text': [{ [LIVEZ]: { grpc: { port: 1, service: 3 } } }, /grpc\.service must be a text/],
  };
  for (const [name, [value, message]] of Object.entries(cases)) it(name, () => assert.match(problems(value).join('\n'), message));

  it('all-at-once', () => {
    const found = problems({
      '/x': {},
      [LIVEZ]: { httpGet: { port: 0, scheme: 'FTP' } },
      '/app-health/b/readyz': { tcpSocket: { port: 15020 }, timeoutSeconds: 1.5 },
    });
    assert.equal(found.length, 5);
  });
});
