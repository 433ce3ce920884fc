// Between the client's TLS settings and their wire form, which is ours (handfast.policy.v1).

import { HandfastError } from '../errors.ts';
import { type ClientTls, type ClientTlsMode, type ClientTlsRule, type ClientTlsSettings, clientTlsModes } from '../policy/model.ts';
import * as wire from '../wire/gen/handfast/policy/v1/traffic_policy.ts';

const MODES: Readonly<Record<ClientTlsMode, wire.ClientTlsMode>> = {
  DISABLE: wire.ClientTlsMode.CLIENT_DISABLE,
  SIMPLE: wire.ClientTlsMode.CLIENT_SIMPLE,
  MUTUAL: wire.ClientTlsMode.CLIENT_MUTUAL,
  ISTIO_MUTUAL: wire.ClientTlsMode.CLIENT_ISTIO_MUTUAL,
};

export function ruleToWire({ host, ...settings }: ClientTlsRule): wire.ClientTlsRule {
  return { host, settings: settingsToWire(settings) };
}

/** Throws OBJECT_INVALID for what this build does not know. */
export function ruleFromWire({ host, settings }: wire.ClientTlsRule): ClientTlsRule {
  if (host === '' || settings === undefined) throw new HandfastError('OBJECT_INVALID', 'a client TLS rule without host or settings');
  return Object.freeze({ host, ...settingsFromWire(settings) });
}

export function settingsToWire({ tls, ports }: ClientTlsSettings): wire.ClientTlsSettings {
  return {
    tls: tls === undefined ? undefined : tlsToWire(tls),
    ports: [...ports].map(([port, own]) => ({ port, tls: own === undefined ? undefined : tlsToWire(own) })),
  };
}

/** Throws OBJECT_INVALID for what this build does not know. */
export function settingsFromWire({ tls, ports }: wire.ClientTlsSettings): ClientTlsSettings {
  return Object.freeze({
    tls: tls === undefined ? undefined : tlsFromWire(tls),
    ports: new Map(ports.map(({ port, tls: own }) => [port, own === undefined ? undefined : tlsFromWire(own)])),
  });
}

function tlsToWire(tls: ClientTls): wire.ClientTls {
  return {
    mode: MODES[tls.mode],
    subjectAltNames: [...tls.subjectAltNames],
    sni: tls.sni ?? '',
    clientCertificate: tls.clientCertificate ?? '',
    privateKey: tls.privateKey ?? '',
    caCertificates: tls.caCertificates ?? '',
    source: tls.source,
  };
}

function tlsFromWire(tls: wire.ClientTls): ClientTls {
  const mode = clientTlsModes.find((name) => MODES[name] === tls.mode);
  // Read as another, it could be a laxer one.
  if (mode === undefined) throw new HandfastError('OBJECT_INVALID', `${tls.source}: unknown client TLS mode`);
  const given = (text: string) => (text === '' ? undefined : text);
  return Object.freeze({
    mode,
    subjectAltNames: tls.subjectAltNames,
    sni: given(tls.sni),
    clientCertificate: given(tls.clientCertificate),
    privateKey: given(tls.privateKey),
    caCertificates: given(tls.caCertificates),
    source: tls.source,
  });
}
